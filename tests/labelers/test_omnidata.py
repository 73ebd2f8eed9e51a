"""Omnidata's labeler: axes and their signs, sizes, and accepted files. The networks: tests/golden."""

from __future__ import annotations

import socket
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omnidata_tools.torch.modules.midas import vit
from safetensors.torch import save_file
from torch import Tensor, nn

from dmp_core.errors import InputError
from dmp_core.labelers import omnidata
from tests.golden.fill import uniform
from tests.golden.vectors import FOLDER


class Echo(nn.Module):
    """Returns a 1 x 1 convolution of its input, by default the input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1, bias=False)
        self.pretrained = SimpleNamespace(activations={"1": torch.zeros(1)})
        self.sizes: list[tuple[int, ...]] = []
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(3).view(3, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(tuple(images.shape))
        return self.mix(images)


def labeler(variant: str = "v2", **options: Any) -> omnidata.OmnidataLabeler:
    return omnidata.OmnidataLabeler(Echo(), variant, **options)


def code(*colour: float) -> Tensor:
    return torch.tensor(colour).view(1, 3, 1, 1)


# -------------------------------------------------------------------------------------- axes
@pytest.mark.parametrize(
    ("surface", "colour", "expected"),
    [
        ("wall that faces the viewer", (0.5, 0.5, 0), (0, 0, 1)),
        ("floor", (0.5, 0, 0.5), (0, 1, 0)),
        ("ceiling", (0.5, 1, 0.5), (0, -1, 0)),
        ("wall on the left", (1, 0.5, 0.5), (1, 0, 0)),
        ("wall on the right", (0, 0.5, 0.5), (-1, 0, 0)),
    ],
)
def test_axes(surface: str, colour: tuple[float, ...], expected: tuple[float, ...]) -> None:
    assert omnidata.normals(code(*colour)).flatten().tolist() == pytest.approx(expected, abs=1e-6), surface


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        ((0.00621688, -0.9692557, -0.11855131), (0, 1, 0)),  # of the floor
        ((0.01825583, 0.98115635, 0.0951637), (0, -1, 0)),  # of the ceiling
        ((-0.51757413, 0.07216501, -0.8123885), (-0.5, 0, 0.85)),  # of a wall ahead, at the right
    ],
)
def test_readings_of_the_real_network(reading: tuple[float, ...], expected: tuple[float, ...]) -> None:
    """2c - 1 of v2's output for a photo of a room, as published in maturk/dn-splatter, issue 9."""
    found = omnidata.normals((code(*reading) + 1) / 2).flatten()
    assert torch.cosine_similarity(found, torch.tensor(expected), dim=0) > 0.97


def test_agrees_with_the_authors_loader() -> None:
    """It converts a code to left, up, away by negating all three of 2c - 1, then blue once more."""
    colours = uniform(1, (4, 3, 5, 7))
    theirs = -(colours - 0.5) * 2
    theirs[:, 2] *= -1
    ours = omnidata.unit(theirs * torch.tensor([-1, 1, -1]).view(3, 1, 1))
    torch.testing.assert_close(omnidata.normals(colours), ours)


@pytest.mark.parametrize("name", ["omnidata_v2.384", "3dcc.384", "3dcc.512"])
def test_recorded_outputs_as_normals(name: str) -> None:
    recorded = np.load(FOLDER / "omnidata.npz")[f"{name}.out_sub8"].clip(0, 1).astype(np.float64)
    expected = np.stack([2 * recorded[:, 0] - 1, 1 - 2 * recorded[:, 1], 1 - 2 * recorded[:, 2]], 1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = omnidata.normals(torch.from_numpy(recorded).float())
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_direction_becomes_that_to_the_viewer() -> None:
    assert omnidata.normals(code(0.5, 0.5, 0.5)).flatten().tolist() == [0, 0, 1]


# ----------------------------------------------------------------------------------- labelling
def test_output_is_clamped_and_decoded() -> None:
    built = labeler(size=32)
    with torch.no_grad():
        built.network.mix.weight.mul_(3)
    images = uniform(2, (2, 3, 32, 32))
    torch.testing.assert_close(built(images)["normal"], omnidata.normals((3 * images).clamp(0, 1)))


def test_3dcc_sees_images_from_minus_one_to_one() -> None:
    images = uniform(3, (1, 3, 32, 32))
    torch.testing.assert_close(labeler("3dcc").code(images), (2 * images - 1).clamp(0, 1))
    torch.testing.assert_close(labeler("v2").code(images), images)


@pytest.mark.parametrize(
    ("height", "width", "seen"),
    [
        (512, 512, (384, 384)),
        (384, 384, (384, 384)),
        (480, 640, (384, 512)),
        (1080, 1920, (384, 672)),
        (50, 37, (512, 384)),
    ],
)
def test_short_side_is_384(height: int, width: int, seen: tuple[int, int]) -> None:
    assert omnidata.working_size(height, width, short=384) == seen


def test_labels_have_the_images_size() -> None:
    built = labeler(size=64)
    normal = built(uniform(4, (2, 3, 48, 80)))["normal"]
    assert built.network.sizes == [(2, 3, 64, 96)]
    assert normal.shape == (2, 3, 48, 80)
    assert normal.dtype == torch.float32
    torch.testing.assert_close(normal.norm(dim=1), torch.ones(2, 48, 80))


@pytest.mark.parametrize("side", [128, 32])
def test_a_sphere_keeps_its_normals_when_resized(side: int) -> None:
    y, x = torch.meshgrid(torch.linspace(0.6, -0.6, 64), torch.linspace(-0.6, 0.6, 64), indexing="ij")
    sphere = torch.stack([x, y, (1 - x**2 - y**2).sqrt()])[None]
    found = labeler(size=side)((sphere * torch.tensor([1, -1, -1]).view(3, 1, 1) + 1) / 2)["normal"]
    angle = torch.rad2deg(torch.acos((found * sphere).sum(1).clamp(-1, 1)))
    assert angle.max() < 2


def test_images_are_independent() -> None:
    built = labeler(size=32, batch_size=2)
    images = uniform(5, (5, 3, 40, 40))
    together = built(images)["normal"]
    assert [size[0] for size in built.network.sizes] == [2, 2, 1]
    torch.testing.assert_close(together, torch.cat([built(image[None])["normal"] for image in images]))


def test_mixed_precision_differs_by_rounding_alone() -> None:
    # Far from grey, where the direction depends on the last digit.
    images = uniform(6, (1, 3, 32, 32), 0.6, 1.0)
    exact, mixed = (labeler(size=32, dtype=name)(images)["normal"] for name in ("float32", "bfloat16"))
    assert mixed.dtype == torch.float32
    assert 0 < (exact - mixed).abs().max() < 0.02


def test_features_are_not_kept() -> None:
    built = labeler(size=32)
    built(uniform(7, (1, 3, 32, 32)))
    assert built.network.pretrained.activations == {}


@pytest.mark.parametrize(
    "images", [torch.zeros(3, 8, 8), torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)]
)
def test_other_shapes_are_refused(images: Tensor) -> None:
    with pytest.raises(InputError, match=r"images: expected floats \(B, 3, H, W\)"):
        labeler()(images)


@pytest.mark.parametrize("value", [255.0, -1.0, float("nan")])
def test_other_units_are_refused(value: float) -> None:
    with pytest.raises(InputError, match="leave 0 … 1"):
        labeler()(torch.full((1, 3, 8, 8), value))


@pytest.mark.parametrize(
    ("options", "field"),
    [({"size": 400}, "size: 400"), ({"size": 0}, "size: 0"), ({"batch_size": 0}, "batch_size: 0"),
     ({"dtype": "fp8"}, "dtype: 'fp8'")],
)  # fmt: skip
def test_unknown_options_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        omnidata.build("unused", **options)


# --------------------------------------------------------------------------------------- files
@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Every name of the network; each tensor is one repeated number, so that its file is small."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in omnidata.network("v2").state_dict().items()}
    return {name: torch.full((1,) * len(shape), 0.5).expand(shape) for name, shape in shapes.items()}


def published(variant: str, weights: dict[str, Tensor]) -> dict[str, Any]:
    prefix = omnidata.VARIANTS[variant].prefix
    container = {"v2": "state_dict", "3dcc": "('rgb', 'normal')"}[variant]
    return {container: {prefix + name: tensor for name, tensor in weights.items()}}


def test_construction_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    theirs = vit.timm
    with torch.device("meta"):
        omnidata.network("v2")
    assert vit.timm is theirs


@pytest.mark.parametrize("variant", omnidata.VARIANTS)
@pytest.mark.parametrize("folder", [False, True])
def test_the_file_states_its_variant(variant: str, folder: bool, weights: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / omnidata.VARIANTS[variant].file
    torch.save(published(variant, weights), file)
    built = omnidata.build(tmp_path if folder else file)
    assert built.variant is omnidata.VARIANTS[variant]
    assert {(tensor.dtype, tensor.device.type) for tensor in built.network.parameters()} == {(torch.float32, "cpu")}
    assert all((tensor == 0.5).all() for tensor in built.network.parameters())
    assert not built.network.training


def test_a_wrong_variant_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(published("3dcc", weights), file)
    with pytest.raises(InputError, match=r"variant: 'v2' given, but .*weights.pth contains '3dcc'"):
        omnidata.load_network(file, "v2")


def test_bare_names_need_the_variant(weights: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(weights, file)
    with pytest.raises(InputError, match="set variant to one of v2, 3dcc"):
        omnidata.load_network(file)
    assert omnidata.load_network(file, "3dcc")[1] == "3dcc"
    with pytest.raises(InputError, match="variant: 'v1' is unknown"):
        omnidata.load_network(file, "v1")


def test_a_folder_with_both_needs_the_variant(weights: dict[str, Tensor], tmp_path: Path) -> None:
    for variant, settings in omnidata.VARIANTS.items():
        torch.save(published(variant, weights), tmp_path / settings.file)
    with pytest.raises(InputError, match="several networks; set variant"):
        omnidata.load_network(tmp_path)
    assert omnidata.load_network(tmp_path, "v2")[1] == "v2"


def test_safetensors_are_read(tmp_path: Path) -> None:
    """Only the names: a whole file would take half a gigabyte."""
    file = tmp_path / "omnidata_dpt_normal_v2.safetensors"
    save_file({"model.scratch.output_conv.4.bias": torch.zeros(3)}, file)
    with pytest.raises(InputError, match=r"v2.safetensors: not the weights of Omnidata's DPT: 367 missing"):
        omnidata.load_network(tmp_path)


FAULTS: list[tuple[Callable[[dict[str, Tensor]], Any], str]] = [
    (lambda names: names.pop("scratch.output_conv.4.bias"), r"1 missing \(first: scratch.output_conv.4.bias\)"),
    (lambda names: names.update(extra=torch.zeros(1)), r"1 unexpected \(first: extra\)"),
    (lambda names: names.update({"scratch.output_conv.4.bias": torch.zeros(1)}), "1 of another shape"),
]


@pytest.mark.parametrize(("spoil", "fault"), FAULTS)
def test_other_names_are_refused(
    spoil: Callable[[dict[str, Tensor]], Any], fault: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    names = dict(weights)
    spoil(names)
    file = tmp_path / "weights.ckpt"
    torch.save(published("v2", names), file)
    with pytest.raises(InputError, match=rf"weights.ckpt: not the weights of Omnidata's DPT: {fault}"):
        omnidata.load_network(file)


def test_lightnings_metadata_needs_no_lightning(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint as it was written in 2022: a callback's class as a key, and a dict class of Lightning's."""
    module = ModuleType("pytorch_lightning.somewhere")
    for name, base in (("ModelCheckpoint", object), ("AttributeDict", dict)):
        setattr(module, name, type(name, (base,), {"__module__": module.__name__, "__qualname__": name}))
    file = tmp_path / "omnidata_dpt_normal_v2.ckpt"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pytorch_lightning", ModuleType("pytorch_lightning"))
        patch.setitem(sys.modules, module.__name__, module)
        notes = {"callbacks": {module.ModelCheckpoint: {"best": 1.0}}, "hyper_parameters": Namespace(lr=1e-5)}
        torch.save(published("v2", weights) | notes | {"hparams": module.AttributeDict(lr=1e-5)}, file)
    assert module.__name__ not in sys.modules
    assert omnidata.load_network(file)[1] == "v2"


class Intruder:
    """Would create a file when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_code_in_a_file_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    file, mark = tmp_path / "weights.ckpt", tmp_path / "intruded"
    torch.save(published("v2", weights) | {"notes": Intruder(mark)}, file)
    with pytest.raises(InputError, match=r"weights.ckpt: not readable as weights"):
        omnidata.load_network(file)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_unreadable_files_are_refused(content: bytes | None, weights: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "weights.ckpt"
    torch.save(published("v2", weights), file)
    file.write_bytes(file.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(InputError, match=r"weights.ckpt: not readable as weights .*download omnidata_dpt"):
        omnidata.load_network(file)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"model.a": 1}}, {}])
def test_other_contents_are_refused(content: Any, tmp_path: Path) -> None:
    file = tmp_path / "weights.ckpt"
    torch.save(content, file)
    with pytest.raises(InputError, match=r"expected named tensors; download omnidata_dpt_normal_v2.ckpt or"):
        omnidata.load_network(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*absent.ckpt; download omnidata_dpt_normal_v2.ckpt"):
        omnidata.load_network(tmp_path / "absent.ckpt")
    with pytest.raises(InputError, match="there is no file"):
        omnidata.load_network(tmp_path)
    with pytest.raises(InputError, match="no weights given"):
        omnidata.build(None)
