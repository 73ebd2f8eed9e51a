"""The segmentation labeler: loading, sizes, windows, and refused input. Its numbers: tests/golden/test_eva02.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dmp_core.errors import InputError
from dmp_core.labelers.eva02 import (
    CHECKPOINT,
    Eva02Config,
    Eva02Labeler,
    Eva02Segmenter,
    build,
    class_map,
    from_timm,
    load_network,
    normalised,
    rotary_tables,
    working_size,
)
from dmp_core.labelers.upernet import resize
from dmp_core.modalities import find_modality
from tests.golden.fill import fill_module, uniform

TINY = Eva02Config(
    classes=20,
    window=32,
    stride=21,
    patch=16,
    width=16,
    depth=4,
    heads=2,
    taps=(0, 1, 2, 3),
    head_channels=8,
    auxiliary_channels=4,
)


def checkpoint(config: Eva02Config = TINY) -> dict[str, Tensor]:
    """A whole published checkpoint, rotary tables and auxiliary head included, at a tiny size."""
    network = Eva02Segmenter(config, auxiliary=True)
    fill_module(network, rename=from_timm)
    state = {from_timm(name): tensor for name, tensor in network.state_dict().items()}
    places = ["backbone.rope", *(f"backbone.blocks.{i}.attn.rope" for i in range(config.depth))]
    tables = rotary_tables(network)
    return state | {f"{place}.{name}": table.clone() for place in places for name, table in tables.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As mmsegmentation writes it."""
    path = tmp_path_factory.mktemp("eva02") / f"{CHECKPOINT}.pth"
    torch.save({"meta": {"CLASSES": ["wall"], "iter": 80000}, "state_dict": checkpoint()}, path)
    return path


@pytest.fixture(scope="module")
def labeler(weights: Path) -> Eva02Labeler:
    return build(weights, config=TINY)


# ------------------------------------------------------------------------------------- labels
def test_one_window_is_the_networks_likeliest_class(labeler: Eva02Labeler) -> None:
    images = uniform(1, (2, 3, 32, 32))
    labels = labeler(images)
    assert list(labels) == ["segmentation"]
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = labeler.network((images - mean) / std).argmax(1)
    assert torch.equal(labels["segmentation"].long(), expected)
    assert len(expected.unique()) > 3


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (80, 50), (20, 31), (16, 120)])
def test_labels_have_the_images_size(labeler: Eva02Labeler, size: tuple[int, int]) -> None:
    labels = labeler(uniform(2, (1, 3, *size)))["segmentation"]
    assert labels.shape == (1, *size)
    assert labels.dtype == torch.uint8
    assert labels.max() < TINY.classes
    assert find_modality("segmentation").encode(labels[0].numpy())


def test_batches_change_nothing(labeler: Eva02Labeler) -> None:
    """Up to rounding: logits are compared, since a tie may be decided either way."""
    images = normalised(uniform(3, (3, 3, 32, 70)))
    together = labeler.network.slide(images)
    alone = torch.cat([labeler.network.slide(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    in_pairs = Eva02Labeler(labeler.network, batch_size=2)
    assert in_pairs(uniform(3, (3, 3, 32, 70)))["segmentation"].shape == (3, 32, 70)


def test_mixed_precision(labeler: Eva02Labeler) -> None:
    images = uniform(4, (2, 3, 32, 70))
    rough = Eva02Labeler(labeler.network, "bfloat16")(images)["segmentation"]
    assert (rough == labeler(images)["segmentation"]).float().mean() > 0.8


def test_labels_can_be_changed_by_the_caller(labeler: Eva02Labeler) -> None:
    labels = labeler(uniform(5, (1, 3, 32, 32)))["segmentation"]
    labels[:] = 255
    assert not labels.requires_grad


# ------------------------------------------------------------------------------ sizes, windows
@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 512), (512, 512)), ((480, 640), (512, 683)), ((1080, 1920), (512, 910)), ((300, 200), (768, 512))],
)
def test_working_size_is_the_published_one(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert working_size(*size, short=512) == expected
    scale = min(512 / min(size), 2048 / max(size))
    assert tuple(int(side * scale + 0.5) for side in size) == expected


def test_a_panorama_stays_one_window_high() -> None:
    assert working_size(100, 1000, short=512) == (512, 5120)


class Columns(Eva02Segmenter):
    """A window's logit is the column at which the window begins."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :1, :1, :1].expand(-1, -1, *images.shape[2:])


@pytest.mark.parametrize(
    ("width", "starts"), [(512, [0]), (513, [0, 1]), (853, [0, 341]), (854, [0, 341, 342]), (1024, [0, 341, 512])]
)
def test_windows_are_averaged(width: int, starts: list[int]) -> None:
    """starts: where mmsegmentation's windows of 512 begin, 341 apart, the last one moved back into the image."""
    with torch.device("meta"):
        network = Columns(replace(TINY, classes=1, window=512, stride=341))
    logits = network.slide(torch.arange(float(width)).expand(1, 3, 512, width))
    over = [[start for start in starts if start <= column < start + 512] for column in range(width)]
    expected = torch.tensor([sum(covering) / len(covering) for covering in over])
    torch.testing.assert_close(logits, expected.expand(1, 1, 512, width))


def test_class_map_is_argmax() -> None:
    logits = uniform(6, (2, 37, 5, 7), -1, 1)
    logits[:, 20] = logits[:, 3]  # a tie across groups goes to the first
    assert torch.equal(class_map(logits, (5, 7)).long(), logits.argmax(1))
    assert torch.equal(class_map(logits, (11, 6)).long(), resize(logits, (11, 6)).argmax(1))


# ------------------------------------------------------------------------------------ loading
def same(left: Eva02Segmenter, right: Eva02Segmenter) -> bool:
    return all(torch.equal(right.state_dict()[name], tensor) for name, tensor in left.state_dict().items())


def test_every_published_form_loads_alike(weights: Path, tmp_path: Path) -> None:
    reference = load_network(weights, TINY)
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in reference.parameters())
    assert not reference.training
    state = checkpoint()
    lean = {name: t for name, t in state.items() if ".rope." not in name and not name.startswith("auxiliary_head.")}
    save_file(lean, tmp_path / f"{CHECKPOINT}.safetensors")
    torch.save(state, tmp_path / "plain.pth")
    assert same(load_network(tmp_path, TINY), reference)
    assert same(load_network(tmp_path / "plain.pth", TINY), reference)


def test_half_precision_files_become_single(tmp_path: Path) -> None:
    torch.save({n: t.half() if t.is_floating_point() else t for n, t in checkpoint().items()}, tmp_path / "half.pth")
    network = load_network(tmp_path / "half.pth", TINY)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "backbone.blocks.2.attn.q_bias"), r"1 missing .*backbone\.blocks\.2\.attn\.q_bias"),
        (lambda s: without(s, "auxiliary_head.conv_seg.bias"), r"1 missing .*auxiliary_head\.conv_seg\.bias"),
        (lambda s: s | {"neck.weight": torch.ones(2)}, r"1 unexpected .*neck\.weight"),
        (lambda s: s | {"decode_head.conv_seg.bias": torch.ones(21)}, r"conv_seg\.bias \(21,\) instead of \(20,\)"),
        (lambda s: s | {"backbone.rope.freqs_cos": torch.ones(4, 8)}, r"backbone\.rope\.freqs_cos is for other"),
        (lambda s: s | {"backbone.rope.freqs_tan": torch.ones(4, 8)}, r"backbone\.rope\.freqs_tan is for other"),
        (lambda s: s | {"epoch": 3}, "expected named tensors"),
        (lambda s: list(s), "expected named tensors"),
    ],
)
def test_weights_of_another_network(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    torch.save(change(checkpoint()), tmp_path / "other.pth")
    with pytest.raises(InputError, match=rf"other\.pth.*{message}"):
        load_network(tmp_path / "other.pth", TINY)


def test_unreadable_files(weights: Path, tmp_path: Path) -> None:
    whole = weights.read_bytes()
    files = {
        "cut.pth": whole[: len(whole) // 2],
        "empty.pth": b"",
        "page.pth": b"<html>404</html>",
        "page.safetensors": b"<html>404</html>",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=rf"{name}: not readable as weights"):
            load_network(tmp_path / name, TINY)


def test_the_best_score_of_numpy_1_is_data(tmp_path: Path) -> None:
    path = tmp_path / "scored.pth"
    notes = {"hook_msgs": {"best_score": np.float64(0.5977)}}
    torch.save({"meta": notes, "state_dict": checkpoint()}, path, _use_new_zipfile_serialization=False)
    moved, old = b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"
    assert moved in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(moved, old))
    load_network(path, TINY)


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": checkpoint(), "hook": Path}, tmp_path / "code.pth")
    with pytest.raises(InputError, match=r"code\.pth: not readable .*safetensors"):
        load_network(tmp_path / "code.pth", TINY)


# ----------------------------------------------------------------------------------- refusals
def test_no_weights(tmp_path: Path) -> None:
    for missing in (None, tmp_path, tmp_path / "nowhere.pth"):
        with pytest.raises(InputError, match=rf"eva02.*download {CHECKPOINT}\.pth"):
            build(missing)


@pytest.mark.parametrize("options", [{"dtype": "int8"}, {"batch_size": 0}])
def test_unknown_options(weights: Path, options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        build(weights, config=TINY, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 32, 32),
        torch.zeros(1, 4, 32, 32),
        torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        torch.full((1, 3, 32, 32), 255.0),
        torch.full((1, 3, 32, 32), torch.nan),
    ],
)
def test_other_units(labeler: Eva02Labeler, images: Tensor) -> None:
    with pytest.raises(InputError, match="images: "):
        labeler(images)
