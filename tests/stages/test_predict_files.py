"""`dmp predict`: precedence of settings, names, what is skipped, and that no file of the user is overwritten."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from dmp_core.cli import app
from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.requests.predict_files import INDEX
from dmp_core.requests.predictor import prediction_config
from dmp_core.resources import manifest_root
from dmp_core.synthesis.listing import read_folder
from dmp_core.weights.load import load_base
from dmp_core.weights.settings import BaseConfig

ROOT = Path(__file__).resolve().parents[2]

DEPTH = ("--modality", "depth", "--adapter", "shipped:depth")
DEPTH_FILES = ("pred.npy", "pred.png", "view.png")


def predict(*arguments: object) -> None:
    app(["predict", *map(str, arguments)], standalone_mode=False)


def photo_file(file: Path, size: tuple[int, int] = (16, 16), seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    codes = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(codes).save(file)
    return file


def names(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()} - {INDEX}


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., Path]:
    """A copy of a shipped adapter, its card or its weights changed."""

    def changed(name: str, edit: Callable[[Any], Any] | None = None, **card: Any) -> Path:
        folder = tmp_path / f"{name}-changed"
        shutil.copytree(manifest_root() / "adapters" / name, folder, copy_function=shutil.copyfile)
        file = folder / "dmp.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | card))
        if edit is not None:
            weights = folder / "adapter_model.safetensors"
            save_file(edit(load_file(weights)), weights, {"format": "pt"})
        return folder

    return changed


# ------------------------------------------------------------------------------------- settings
def test_the_card_overrides_the_preset_and_the_user_both(adapter: Callable[..., Path], tmp_path: Path) -> None:
    encoding = {"mode": "F", "scale": 16.0}
    place = str(adapter("depth", encoding=encoding, num_steps=3, source="oracle", resolution=96))
    found, _ = prediction_config("mini", None, None, place, "depth")
    assert (found.sampling.num_steps, found.sampling.source) == (3, "oracle")  # mini's: 1, estimated
    assert (found.latents.depth_scale, found.latents.resolution_of("depth")) == (16, 96)
    assert found.sampling.mirrored  # from the preset, since the card does not state it
    own, _ = prediction_config("mini", None, ["sampling.num_steps=2", "latents.resolution=64"], place, "depth")
    assert (own.sampling.num_steps, own.sampling.source) == (2, "oracle")
    assert (own.latents.depth_scale, own.latents.resolution_of("depth")) == (16, 64)
    file = tmp_path / "own.yaml"
    for head in ("", "extends: mini\n"):
        file.write_text(f"{head}sampling: {{num_steps: 4}}\n")
        assert prediction_config("mini", file, None, place, "depth")[0].sampling.num_steps == 4


@pytest.mark.parametrize("setting", ["latents.depth_scale=8", "latents.depth_scale=16.5"])
def test_a_depth_scale_that_contradicts_the_card_is_refused(adapter: Callable[..., Path], setting: str) -> None:
    place = str(adapter("depth", encoding={"mode": "F", "scale": 16.0}))
    with pytest.raises(InputError, match=r"its depth scale is 16, latents\.depth_scale is "):
        prediction_config("mini", None, [setting], place, "depth")


def test_another_task_palette_or_method_is_refused(adapter: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"shipped:normal: .*trained for normal, not for depth"):
        prediction_config("mini", None, None, "shipped:normal", "depth")
    with pytest.raises(InputError, match=r"its palette is default, latents\.palette is dmp2"):
        prediction_config("mini", None, ["latents.palette=dmp2"], "shipped:segmentation", "segmentation")
    assert (
        prediction_config("paper", None, None, "shipped:segmentation", "segmentation")[0].latents.palette == "default"
    )
    with pytest.raises(InputError, match="belongs to the method label_prior"):
        prediction_config("mini", None, None, str(adapter("depth", method="label_prior")), "depth")


def test_likelihoods_need_the_cards_shares_only_if_they_are_requested(adapter: Callable[..., Path]) -> None:
    place = str(adapter("segmentation", encoding={"palette": "default"}))
    assert prediction_config("mini", None, None, place, "segmentation")[0].sampling.colour_noise is None
    asked, _ = prediction_config("mini", None, ["sampling.colour_noise=0.1"], place, "segmentation")
    assert asked.sampling.colour_noise == 0.1


def test_twice_the_scale_gives_twice_the_metres(adapter: Callable[..., Path], tmp_path: Path) -> None:
    image = photo_file(tmp_path / "x.png")
    twice = adapter("depth", encoding={"mode": "F", "scale": 16.0})
    predict(image, *DEPTH, "--out", tmp_path / "a")
    predict(image, "--modality", "depth", "--adapter", twice, "--out", tmp_path / "b")
    one, two = (find_modality("depth").decode((tmp_path / out / "x.depth.pred.npy").read_bytes()) for out in "ab")
    np.testing.assert_allclose(two, 2 * one, rtol=1e-3)


# ---------------------------------------------------------------------------------------- names
def test_results_are_no_labels_and_no_images_of_a_later_import(tmp_path: Path) -> None:
    mine, label = photo_file(tmp_path / "p" / "x.png"), photo_file(tmp_path / "p" / "x.normal.png", seed=1)
    photo, before = photo_file(tmp_path / "p" / "a room.view.png"), label.read_bytes()
    predict(mine, "--modality", "normal", "--adapter", "shipped:normal", "--out", tmp_path / "p")
    predict(mine, "--modality", "segmentation", "--adapter", "shipped:segmentation", "--out", tmp_path / "p")
    assert label.read_bytes() == before
    made = {"x.normal.pred.png", "x.normal.view.png", "x.seg.pred.png", "x.segmentation.view.png"}
    assert names(tmp_path / "p") == made | {mine.name, label.name, photo.name}
    listing = read_folder(tmp_path / "p")
    assert [image.file for image in listing.images] == ["a room.view.png", "x.png"]
    assert [found.file for image in listing.images for found in image.labels] == ["x.normal.png"]
    assert set(listing.ignored) == made


def test_images_of_one_name_are_named_by_their_paths(tmp_path: Path) -> None:
    images = [
        photo_file(tmp_path / place, seed=n) for n, place in enumerate(("a/x.png", "b/x.png", "b/c/X.jpg", "b/y.png"))
    ]
    predict(*images, *DEPTH, "--out", tmp_path / "out")
    stems = ("a/x", "b/x", "b/c/X", "b/y")
    assert names(tmp_path / "out") == {f"{stem}.depth.{end}" for stem in stems for end in DEPTH_FILES}


def test_an_image_given_twice_is_predicted_once(tmp_path: Path) -> None:
    image = photo_file(tmp_path / "a" / "x.png")
    predict(image, tmp_path / "a" / ".." / "a" / "x.png", *DEPTH, "--out", tmp_path / "out")
    assert names(tmp_path / "out") == {f"x.depth.{end}" for end in DEPTH_FILES}


def test_names_that_clash_in_every_path_are_rejected_before_any_work(tmp_path: Path) -> None:
    images = [photo_file(tmp_path / "a" / name) for name in ("x.png", "x.jpg")]
    with pytest.raises(InputError, match=r"x\.png and .*x\.jpg: their results would have one name"):
        predict(*images, *DEPTH, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_are_no_patterns(tmp_path: Path) -> None:
    image = photo_file(tmp_path / "p[1]" / "photo [draft] {a}*.png")
    predict(image, *DEPTH, "--out", tmp_path / "out [v1]")
    assert "photo [draft] {a}*.depth.pred.npy" in names(tmp_path / "out [v1]")


# ------------------------------------------------------------------------------- existing files
def test_only_files_of_this_command_are_replaced(tmp_path: Path) -> None:
    image, out = photo_file(tmp_path / "x.png"), tmp_path / "out"
    predict(image, *DEPTH, "--out", out)
    result, view = out / "x.depth.pred.npy", out / "x.depth.view.png"
    first = result.read_bytes()
    photo_file(image, seed=5)
    with (out / INDEX).open("a") as stream:
        stream.write('{"file": "x.dep')  # killed while writing
    predict(image, *DEPTH, "--out", out)
    assert result.read_bytes() != first
    for theirs in (result, view):
        ours = theirs.read_bytes()
        theirs.write_bytes(b"mine")
        with pytest.raises(InputError, match=f"{theirs.name}: exists, and `dmp predict` did not write it"):
            predict(image, *DEPTH, "--out", out)
        assert theirs.read_bytes() == b"mine"
        theirs.write_bytes(ours)


@pytest.mark.parametrize("name", ["x.depth.pred.npy", "x.depth.view.png", INDEX])
@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling"])
def test_files_of_other_programs_are_kept(tmp_path: Path, name: str, kind: str) -> None:
    image, out = photo_file(tmp_path / "x.png"), tmp_path / "out"
    out.mkdir()
    (tmp_path / "theirs").write_bytes(b"precious")
    if kind == "folder":
        (out / name).mkdir()
    elif kind == "file":
        (out / name).write_bytes(b"precious")
    else:
        (out / name).symlink_to(tmp_path / ("theirs" if kind == "link" else "nothing"))
    with pytest.raises(InputError, match=f"{name}: "):
        predict(image, *DEPTH, "--out", out)
    assert [file.name for file in out.iterdir()] == [name]
    assert (tmp_path / "theirs").read_bytes() == b"precious"


def test_an_out_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    image = photo_file(tmp_path / "x.png")
    for out in (image, image / "below"):
        with pytest.raises(InputError, match="is a file; give a folder"):
            predict(image, *DEPTH, "--out", out)


# ------------------------------------------------------------------------------ broken images
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_all_images_are_checked_before_any_work(tmp_path: Path) -> None:
    good, bad = photo_file(tmp_path / "x.png"), tmp_path / "y.png"
    bad.write_bytes(b"no image")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    Image.new("1", (10_000, 9_000)).save(tmp_path / "large.png")
    faults = {"y": "not a readable image", "pipe": "a pipe", "zero": "a pipe, socket or device"}
    for name, fault in (faults | {"large": "more than 89 million", "nothing": "cannot be read"}).items():
        with pytest.raises(InputError, match=f"{name}.png: .*{fault}"):
            predict(good, tmp_path / f"{name}.png", *DEPTH, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [(1, 6000), (6000, 1)])
def test_images_too_narrow_are_refused_by_name(tmp_path: Path, size: tuple[int, int]) -> None:
    image = photo_file(tmp_path / "thin.png", size)
    with pytest.raises(InputError, match=r"thin\.png: .* more than 32 times as long as wide"):
        predict(image, *DEPTH, "--out", tmp_path / "out")


# ----------------------------------------------------------------------------------- not finite
def test_an_adapter_with_a_nan_predicts_nothing(adapter: Callable[..., Path], tmp_path: Path) -> None:
    def damaged(weights: Any) -> Any:
        weights[sorted(weights)[3]].view(-1)[0] = float("nan")
        return weights

    place = adapter("normal", damaged)
    with pytest.raises(InputError, match=r"adapter_model\.safetensors: tensor .* holds NaN or infinity"):
        predict(photo_file(tmp_path / "x.png"), "--modality", "normal", "--adapter", place, "--out", tmp_path / "out")
    assert not names(tmp_path / "out")


def test_an_output_that_overflows_is_refused_by_the_images_name(adapter: Callable[..., Path], tmp_path: Path) -> None:
    place = adapter("normal", lambda weights: {name: tensor.float() * 1e30 for name, tensor in weights.items()})
    with pytest.raises(InputError, match=r"x\.png: the model's output holds NaN or infinity"):
        predict(photo_file(tmp_path / "x.png"), "--modality", "normal", "--adapter", place, "--out", tmp_path / "out")
    assert not names(tmp_path / "out")


# ------------------------------------------------------------------------------------- one path
@pytest.mark.parametrize("name", BUILT_IN)
def test_the_pipeline_and_the_command_give_the_same_array(name: str, tmp_path: Path) -> None:
    """Of a photo that is resized both ways, with the preset's mirror and class shares."""
    file = tmp_path / "photo.png"
    Image.open(ROOT / "docs/images/readme.png").convert("RGB").crop((0, 0, 150, 110)).save(file)
    predict(file, "--modality", name, "--adapter", f"shipped:{name}", "--out", tmp_path / "out")
    modality, sampling = find_modality(name), load_config("mini").sampling
    word, _, suffix = modality.member.partition(".")
    written = tmp_path / "out" / f"photo.{word}.pred.{suffix}"
    pipeline = load_base(BaseConfig(model="shipped:mini"))
    pipeline.load_adapter(manifest_root() / "adapters" / name)
    with Image.open(file) as photo:
        labels = pipeline(
            photo, output_type="label", mirrored=sampling.mirrored, colour_noise=sampling.colour_noise
        ).images
    assert sampling.mirrored
    assert sampling.colour_noise
    assert labels[0].shape[:2] == (110, 150)
    np.testing.assert_array_equal(modality.decode(modality.encode(labels[0])), modality.decode(written.read_bytes()))
