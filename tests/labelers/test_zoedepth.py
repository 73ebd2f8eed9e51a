"""ZoeDepth's labeler compared with transformers' processor, model and post-processing, with tiny random networks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation, ZoeDepthImageProcessor

from dmp_core.errors import InputError
from dmp_core.labelers import zoedepth
from tests.golden.fill import fill_module, uniform

INDOORS = {"name": "nyu", "n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}
ROADS = {"name": "kitti", "n_bins": 8, "min_depth": 0.001, "max_depth": 80.0}
HEADS = {"nyu": [INDOORS], "kitti": [ROADS], "nyu-kitti": [INDOORS, ROADS]}
# The tiny networks' own policy; 96 × 128 in place of 384 × 512.
PROCESSOR = {
    "size": {"height": 96, "width": 128},
    "keep_aspect_ratio": True,
    "ensure_multiple_of": 32,
    "do_pad": True,
    "do_resize": True,
}


def tiny(heads: list[dict[str, Any]]) -> ZoeDepthForDepthEstimation:
    backbone = BeitConfig(
        image_size=96,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        use_relative_position_bias=True,
        reshape_hidden_states=False,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    several = len(heads) > 1  # transformers has 4 layers and a width of 128 written into the code of the vote
    config = ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        bottleneck_features=16,
        num_attractors=[4, 3, 2, 1],
        num_relative_features=8,
        bin_embedding_dim=8,
        bin_configurations=[dict(head) for head in heads],
        num_patch_transformer_layers=4 if several else None,
        patch_transformer_hidden_size=128 if several else None,
        patch_transformer_intermediate_size=32 if several else None,
        patch_transformer_num_attention_heads=2 if several else None,
    )
    network = ZoeDepthForDepthEstimation(config)
    fill_module(network)
    return network.eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per published model, as on the hub."""
    root = tmp_path_factory.mktemp("zoedepth")
    for name, heads in HEADS.items():
        tiny(heads).save_pretrained(root / name)
        ZoeDepthImageProcessor(**PROCESSOR).save_pretrained(root / name)
    return {name: root / name for name in HEADS}


def sample_images(count: int, height: int, width: int) -> Tensor:
    """Smooth 8-bit images of different brightness: (count, 3, height, width)."""
    coarse = uniform(11, (count, 3, 5, 7)) * torch.linspace(0.3, 1, count).view(-1, 1, 1, 1)
    return (F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) * 255).round().to(torch.uint8)


# ------------------------------------------------------------------------------------- parity
def transformers_depth(folder: Path, image: Tensor, pad: bool, flip: bool) -> Tensor:
    """One 8-bit image (3, H, W), as in transformers' documentation."""
    processor = ZoeDepthImageProcessor.from_pretrained(folder)
    network = ZoeDepthForDepthEstimation.from_pretrained(folder).eval()
    inputs = processor(images=image, do_pad=pad, return_tensors="pt")
    with torch.no_grad():
        outputs = network(**inputs)
        flipped = network(pixel_values=torch.flip(inputs["pixel_values"], dims=[3])) if flip else None
    result = processor.post_process_depth_estimation(
        outputs, source_sizes=[tuple(image.shape[1:])], outputs_flipped=flipped, do_remove_padding=pad
    )
    return result[0]["predicted_depth"]


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(("pad", "flip"), [(True, False), (True, True), (False, False), (False, True)])
def test_equals_transformers(name: str, pad: bool, flip: bool, folders: dict[str, Path]) -> None:
    batch = sample_images(3, 70, 110)
    found = zoedepth.build(folders[name], pad=pad, flip=flip)(batch / 255)["depth"]
    expected = torch.stack([transformers_depth(folders[name], image, pad, flip) for image in batch])
    assert found.shape == (3, 70, 110)
    assert found.dtype == torch.float32
    assert expected.std() > 1e-3, "a constant would prove little"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def original_depth(folder: Path, image: Tensor) -> Tensor:
    """The original's `infer`, by its description: mirrored margins of 3 √(side / 2), then the mean of two views."""
    network = ZoeDepthForDepthEstimation.from_pretrained(folder).eval()
    height, width = image.shape[-2:]
    tall, wide = int(3 * np.sqrt(height / 2)), int(3 * np.sqrt(width / 2))

    def view(seen: Tensor) -> Tensor:
        padded = F.pad(seen, (wide, wide, tall, tall), mode="reflect")
        scales = 96 / padded.shape[2], 128 / padded.shape[3]
        scale = min(scales, key=lambda each: abs(1 - each))
        size = [round(side * scale / 32) * 32 for side in padded.shape[2:]]
        resized = F.interpolate(padded, size, mode="bilinear", align_corners=True)
        with torch.no_grad():
            depth = network((resized - 0.5) / 0.5).predicted_depth[:, None]
        enlarged = F.interpolate(depth, padded.shape[2:], mode="bicubic", align_corners=False)
        return enlarged[0, 0, tall:-tall, wide:-wide]

    return (view(image[None]) + view(image[None].flip(-1)).flip(-1)) / 2


@pytest.mark.parametrize(("height", "width"), [(96, 96), (70, 110)])
def test_flip_and_pad_are_the_originals_inference(height: int, width: int, folders: dict[str, Path]) -> None:
    image = uniform(12, (3, height, width))
    found = zoedepth.build(folders["nyu"], flip=True)(image[None])["depth"][0]
    torch.testing.assert_close(found, original_depth(folders["nyu"], image), rtol=0, atol=1e-4)


def test_flip_makes_depth_mirror_with_the_image(folders: dict[str, Path]) -> None:
    images = uniform(13, (1, 3, 64, 96))
    built = zoedepth.build(folders["nyu"], flip=True)
    depth, mirrored = built(images)["depth"], built(images.flip(-1))["depth"].flip(-1)
    torch.testing.assert_close(depth, mirrored, rtol=0, atol=1e-4)


# ------------------------------------------------------------------------------------ batches
@pytest.mark.parametrize("name", HEADS)
def test_images_are_independent(name: str, folders: dict[str, Path]) -> None:
    batch = sample_images(5, 64, 64) / 255
    built = zoedepth.build(folders[name], batch_size=2)
    together = built(batch)["depth"]
    torch.testing.assert_close(together, torch.cat([built(image[None])["depth"] for image in batch]))


def test_each_image_chooses_its_own_head(folders: dict[str, Path]) -> None:
    """transformers' model lets the batch vote; bias the vote by brightness, and both heads must be used."""
    dark, bright = torch.full((1, 3, 64, 64), 0.1), torch.full((1, 3, 64, 64), 0.9)
    built = zoedepth.build(folders["nyu-kitti"])
    votes: list[int] = []
    classifier = built.network.metric_head.mlp_classifier
    seen: list[float] = []

    def remember(_: Any, inputs: tuple[Tensor, ...]) -> None:
        seen.append(float(inputs[0].mean()))

    def vote(_: Any, __: Any, logits: Tensor) -> Tensor:
        head = int(seen[-1] > 0)
        votes.append(head)
        return F.one_hot(torch.tensor([head] * len(logits)), 2).float() * 9

    built.network.register_forward_pre_hook(
        lambda _, __, named: remember(_, (named["pixel_values"],)), with_kwargs=True
    )
    classifier.register_forward_hook(vote)
    built(torch.cat([dark, bright, dark]))
    assert votes == [0, 1, 0]


def test_mixed_precision_differs_by_rounding_alone(folders: dict[str, Path]) -> None:
    images = uniform(14, (1, 3, 64, 64))
    exact, mixed = (
        zoedepth.build(folders["nyu"], dtype=precision)(images)["depth"] for precision in ("float32", "bfloat16")
    )
    assert mixed.dtype == torch.float32
    assert 0 < (exact - mixed).abs().max() < 0.1 * exact.mean()


def test_depth_is_never_the_value_of_no_surface(folders: dict[str, Path]) -> None:
    """Bicubic enlargement of 1 next to 0.01 undershoots, and the label must stay positive."""
    built = zoedepth.build(folders["nyu"], pad=False)

    def step(_: Any, __: Any, outputs: Any) -> Any:
        outputs.predicted_depth[:] = 0.01
        outputs.predicted_depth[..., 40:] = 1
        return outputs

    built.network.register_forward_hook(step)
    depth = built(uniform(15, (1, 3, 200, 200)))["depth"]
    assert depth.max() > 1.01, "nothing overshot"
    assert depth.min() == pytest.approx(0.001)


# ------------------------------------------------------------------------------- resize policy
def sizes_seen(built: zoedepth.ZoeDepthLabeler, height: int, width: int) -> tuple[int, ...]:
    seen: list[tuple[int, ...]] = []
    built.network.register_forward_pre_hook(
        lambda _, __, named: seen.append(tuple(named["pixel_values"].shape[2:])), with_kwargs=True
    )
    built(torch.zeros(1, 3, height, width))
    return seen[0]


def test_the_checkpoints_policy_is_the_default(folders: dict[str, Path]) -> None:
    policy = zoedepth.build(folders["nyu"]).policy
    assert policy == zoedepth.Resize((96, 128), keep_aspect_ratio=True, multiple=32)


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({}, (64, 128)),  # both sides by 128 / 150, which is nearer to 1 than 96 / 70
        ({"keep_aspect_ratio": False}, (96, 128)),
        ({"size": (64, 64), "keep_aspect_ratio": False}, (64, 64)),
        ({"size": (64, 64), "multiple": 16}, (64, 144)),
    ],
)
def test_the_policy_can_be_chosen(options: dict[str, Any], seen: tuple[int, int], folders: dict[str, Path]) -> None:
    assert sizes_seen(zoedepth.build(folders["nyu"], pad=False, **options), 70, 150) == seen


def test_published_policy() -> None:
    """The policy in the hub's files, for photos of 480 × 640 and DMP's images of 512²."""
    processor = ZoeDepthImageProcessor(size={"height": 384, "width": 512}, ensure_multiple_of=32)
    assert zoedepth.Resize.of(processor) == zoedepth.Resize((384, 512), keep_aspect_ratio=True, multiple=32)
    # Without a multiple in its file, transformers would take 1/32: sizes that the patches do not divide.
    assert zoedepth.Resize.of(ZoeDepthImageProcessor()).multiple == 32


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"multiple": 24}, "multiple: 24 is not a multiple of the network's patches of 16"),
        ({"multiple": 0}, "multiple: 0"),
        ({"size": (16, 64)}, "size: 16 x 64"),
        ({"batch_size": 0}, "batch_size: 0"),
        ({"dtype": "fp8"}, "dtype: 'fp8'"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, Any], field: str, folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=field):
        zoedepth.build(folders["nyu"], **options)


@pytest.mark.parametrize(
    ("images", "fault"),
    [
        (torch.zeros(3, 64, 64), "expected floats"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "expected floats"),
        (torch.full((1, 3, 64, 64), 255.0), "leave 0 … 1"),
    ],
)
def test_other_images_are_refused(images: Tensor, fault: str, folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=fault):
        zoedepth.build(folders["nyu"])(images)


# --------------------------------------------------------------------------------------- files
@pytest.fixture
def spoilt(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(folders["nyu"], tmp_path / "copy"))


@pytest.mark.parametrize("fault", ["missing", "unexpected", "of another shape"])
def test_weights_load_strictly(fault: str, spoilt: Path) -> None:
    file = spoilt / "model.safetensors"
    weights = load_file(file)
    name = "metric_head.conv2.bias"
    tensor = weights.pop(name)
    if fault == "unexpected":
        weights |= {name: tensor, "extra": tensor.clone()}
        name = "extra"
    elif fault == "of another shape":
        weights[name] = torch.zeros(len(tensor) + 1)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"copy: .* 1 {fault} \(first: {name}\)"):
        zoedepth.build(spoilt)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_missing_and_broken_files_are_refused(file: str, spoilt: Path) -> None:
    (spoilt / file).write_bytes(b"{")
    with pytest.raises(InputError, match=r"copy: not readable as ZoeDepth .*download the files again"):
        zoedepth.build(spoilt)
    (spoilt / file).unlink()
    with pytest.raises(InputError, match=r"copy: not readable as ZoeDepth .*download the files again"):
        zoedepth.build(spoilt)


def test_another_model_is_refused(spoilt: Path) -> None:
    config = json.loads((spoilt / "config.json").read_text())
    (spoilt / "config.json").write_text(json.dumps(config | {"model_type": "dpt"}))
    with pytest.raises(InputError, match=r"copy: contains a model of the kind 'dpt', not ZoeDepth"):
        zoedepth.build(spoilt)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*absent; give one, or one of Intel/zoedepth-nyu"):
        zoedepth.build(tmp_path / "absent")
    with pytest.raises(InputError, match="no weights given; give a folder or one of Intel/zoedepth-nyu"):
        zoedepth.build(None)
