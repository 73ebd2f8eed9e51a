"""The PIE-Net labeler: images of any size, stretched labels, and only this network's checkpoint."""

from __future__ import annotations

import io
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dmp_core.errors import InputError
from dmp_core.labelers.pienet import CrossRatio, PIENet, PIENetLabeler, build, stretch
from tests.golden.fill import fill_module, uniform
from tests.golden.vectors import Golden

FILTERS = ("crossRatio.filter", "crossRatio.filter2")


@pytest.fixture(scope="module")
def network() -> PIENet:
    """The architecture at an eighth of the width."""
    network = PIENet(width=8)
    fill_module(network, skip=FILTERS)
    return network


@pytest.fixture(scope="module")
def labeler(network: PIENet) -> PIENetLabeler:
    return PIENetLabeler(network)


# -------------------------------------------------------------------------------------- labels
@pytest.mark.parametrize("size", [(64, 72), (100, 100), (48, 32), (5, 7), (1, 1)])
def test_labels_have_the_images_size(labeler: PIENetLabeler, size: tuple[int, int]) -> None:
    labels = labeler(uniform(1, (2, 3, *size)))
    assert set(labels) == {"albedo", "shading"}
    assert labels["albedo"].shape == (2, 3, *size)
    assert labels["shading"].shape == (2, *size)
    for label in labels.values():
        assert label.dtype == torch.float32
        assert not label.requires_grad
        if size != (1, 1):
            assert label.flatten(1).amin(1).tolist() == [0, 0]
            assert label.flatten(1).amax(1).tolist() == [1, 1]


def test_padding_repeats_the_last_pixels(labeler: PIENetLabeler, network: PIENet) -> None:
    images = uniform(2, (1, 3, 20, 30))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (0, 12), (0, 2)), mode="edge")
    with torch.no_grad():
        outputs = network(torch.from_numpy(padded))
    labels = labeler(images)
    torch.testing.assert_close(labels["albedo"], stretch(outputs["reflectance"][..., :20, :30]))
    torch.testing.assert_close(labels["shading"], stretch(outputs["shading"][..., :20, :30])[:, 0])


def test_large_images_are_shrunk_to_the_given_size(network: PIENet) -> None:
    seen = []
    hook = network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    labeler = PIENetLabeler(network, size=32)
    for size in ((64, 40), (32, 16), (400, 3)):
        assert labeler(uniform(3, (1, 3, *size)))["albedo"].shape == (1, 3, *size)
    hook.remove()
    assert seen == [(32, 32), (32, 16), (32, 16)]  # 20 columns are padded to 32, 1 to 16


def test_labels_do_not_depend_on_neighbours(network: PIENet) -> None:
    images = uniform(4, (3, 3, 32, 48)) * torch.tensor([0.05, 1, 0.4]).view(3, 1, 1, 1)
    published = PIENet(batch_independent=False, width=8)
    published.load_state_dict(network.state_dict())
    for labeler, dependent in ((PIENetLabeler(network), False), (PIENetLabeler(published), True)):
        together = labeler(images)
        gaps = []
        for index in range(3):
            single = labeler(images[index : index + 1])
            gaps += [(together[task][index] - single[task][0]).abs().max().item() for task in single]
        assert (max(gaps) > 1e-3) == dependent
        assert dependent or max(gaps) < 1e-5


def test_stretch_is_per_image_over_all_channels() -> None:
    maps = torch.tensor([[[2.0, 4], [6, 4]], [[0, 0.5], [1, 0.25]]]).view(2, 2, 1, 2)
    expected = torch.tensor([[[0, 0.5], [1, 0.5]], [[0, 0.5], [1, 0.25]]]).view(2, 2, 1, 2)
    torch.testing.assert_close(stretch(maps), expected)
    assert stretch(torch.full((1, 3, 2, 2), 7.0)).tolist() == torch.zeros(1, 3, 2, 2).tolist()


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_blank_images(labeler: PIENetLabeler, level: float) -> None:
    for label in labeler(torch.full((1, 3, 16, 16), level)).values():
        assert label.isfinite().all()
        assert label.amin() >= 0
        assert label.amax() <= 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(network: PIENet, labeler: PIENetLabeler, dtype: str) -> None:
    images = uniform(5, (1, 3, 32, 32))
    exact, half = labeler(images), PIENetLabeler(network, dtype=dtype)(images)
    for task, label in half.items():
        assert label.dtype == torch.float32
        assert 0 < (label - exact[task]).abs().mean() < 0.02


# -------------------------------------------------------------------------------- cross ratios
def test_cross_ratios_do_not_depend_on_the_light() -> None:
    albedo, light = uniform(6, (1, 3, 12, 10), 0.2, 1), uniform(7, (1, 1, 12, 10), 0.2, 1)
    ratios = CrossRatio()
    torch.testing.assert_close(ratios(albedo * light), ratios(albedo), rtol=0, atol=1e-4)
    gains = torch.tensor([0.3, 1.0, 0.7]).view(1, 3, 1, 1)  # its colour, away from the black frame
    torch.testing.assert_close(
        ratios(albedo * gains)[..., 1:-1, 1:-1], ratios(albedo)[..., 1:-1, 1:-1], rtol=0, atol=1e-4
    )


def test_cross_ratio_of_one_pixel() -> None:
    """By hand: (above · left) / (below · right) of one channel over that of another."""
    image = uniform(8, (1, 3, 3, 3), 0.4, 0.6)
    above, left, below, right = image[0, :, 0, 1], image[0, :, 1, 0], image[0, :, 2, 1], image[0, :, 1, 2]
    red, green, blue = (above * left / (below * right)).tolist()
    limits = (1 / math.e, math.e)
    expected = np.clip([red / green, green / blue, red / blue], *limits)
    np.testing.assert_allclose(CrossRatio()(image)[0, :, 1, 1], expected, atol=1e-4)


def test_cross_ratio_of_black_pixels_is_zero() -> None:
    image = uniform(9, (1, 3, 4, 4), 0.1, 1)
    image[0, 1, 2, 2] = 0
    zero = (CrossRatio()(image) == 0).nonzero().tolist()
    assert zero == [[0, 1, 2, 2]]


# ------------------------------------------------------------------------------------- weights
def hollow_state() -> dict[str, Tensor]:
    """The published keys and shapes, one value per tensor: a full-size checkpoint of a few hundred kB."""
    state = {}
    for key, (shape, dtype) in Golden("pienet").facts["state_dict"].items():
        value = 0.01 + zlib.crc32(key.encode()) % 64 / 1024
        state[key] = torch.tensor(value).to(getattr(torch, dtype.removeprefix("torch."))).expand(shape)
    return state


@pytest.mark.parametrize("zipped", [True, False])
def test_build_from_the_published_format(tmp_path: Path, zipped: bool) -> None:
    state = hollow_state()
    checkpoint = {"iters": 7, "model": state, "optimizer": {"state": {0: {"step": 7}}, "param_groups": [{"lr": 1e-4}]}}
    torch.save(checkpoint, tmp_path / "real_world_model.t7", _use_new_zipfile_serialization=zipped)
    labeler = build(tmp_path if zipped else tmp_path / "real_world_model.t7", "cpu")
    loaded = labeler.network.state_dict()
    assert loaded.keys() == state.keys()
    for key, tensor in loaded.items():
        assert tensor.amin() == tensor.amax() == state[key].reshape(-1)[0], key
    assert not any(module.training for module in labeler.network.modules())
    labels = labeler(torch.rand(1, 3, 16, 16))
    assert all(label.isfinite().all() for label in labels.values())


def test_options_reach_the_labeler(tmp_path: Path) -> None:
    file = tmp_path / "model.t7"
    torch.save({"model": hollow_state()}, file)
    labeler = build(file, "cpu", batch_independent=False, dtype="bfloat16", size=64)
    assert (labeler.dtype, labeler.size) == (torch.bfloat16, 64)
    assert not labeler.network.edgeDecoder.batch_independent


def test_safetensors(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3.0)}, tmp_path / "real_world_model.safetensors")
    # The folder's choice: the torch file next to it is not opened.
    (tmp_path / "real_world_model.t7").write_bytes(b"")
    with pytest.raises(InputError, match=r"real_world_model\.safetensors: weights of another network: 534 missing"):
        build(tmp_path)


class Opaque:
    """Content that a weights file must not contain."""


def torch_bytes(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"not a torch file", "not readable as weights"),
        (b"", "not readable as weights"),
        (torch_bytes({"model": {"a": torch.ones(9)}})[:-60], "not readable as weights"),
        (torch_bytes({"model": {"a": torch.ones(1)}, "optimizer": Opaque()}), "more than plain data"),
        (torch_bytes({"a": torch.ones(1)}), "another network: 534 missing"),
        (torch_bytes([torch.ones(1)]), "expected named tensors"),
        (torch_bytes({"model": {"a": 1}}), "expected named tensors"),
    ],
)
def test_unreadable_files(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "weights.t7"
    file.write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        build(file)
    assert str(file) in str(caught.value)
    assert "download real_world_model.t7 from https://" in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights given; download"):
        build(None)
    with pytest.raises(InputError, match=r"there is no file .*gone\.t7; download"):
        build(tmp_path / "gone.t7")
    with pytest.raises(InputError, match=r"there is no file .*safetensors or .*\.t7; download"):
        build(tmp_path)


def test_weights_of_another_network(tmp_path: Path) -> None:
    state = hollow_state()
    del state["refinerNet.conv0.0.bias"]
    state["module.extra"] = torch.ones(1)
    state["imgEncoder.conv0.0.weight"] = torch.ones(64, 1, 3, 3)
    torch.save({"model": state}, tmp_path / "other.t7")
    with pytest.raises(InputError, match="another network") as caught:
        build(tmp_path / "other.t7")
    for words in (
        "1 missing (first: refinerNet.conv0.0.bias)",
        "1 unexpected (first: module.extra)",
        "1 of another shape (first: imgEncoder.conv0.0.weight (64, 1, 3, 3) instead of (64, 3, 3, 3))",
    ):
        assert words in str(caught.value)


# --------------------------------------------------------------------------------------- input
@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 16, 16), r"\(B, 3, H, W\), found \(3, 16, 16\)"),
        (torch.zeros(1, 4, 16, 16), r"found \(1, 4, 16, 16\)"),
        (torch.zeros(0, 3, 16, 16), r"found \(0, 3, 16, 16\)"),
        (np.zeros((1, 3, 16, 16)), "found ndarray"),
        (torch.full((1, 3, 16, 16), 200, dtype=torch.uint8), r"expected floats .* found torch.uint8"),
        (torch.full((1, 3, 16, 16), 1.5), r"values 1.5 … 1.5 leave 0 … 1"),
        (torch.full((1, 3, 16, 16), torch.nan), r"values nan … nan leave"),
    ],
)
def test_wrong_images(labeler: PIENetLabeler, images: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        labeler(images)


def test_wrong_options(network: PIENet) -> None:
    with pytest.raises(InputError, match="dtype: 'half' is unknown; choose one of float32"):
        PIENetLabeler(network, dtype="half")
    with pytest.raises(InputError, match="size: 8 is below the 16 pixels"):
        PIENetLabeler(network, size=8)
