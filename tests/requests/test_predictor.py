"""All modalities at once: the same arrays as one by one, resume, tiles, uncertainty, and the files' meaning."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dmp_core.cli import app
from dmp_core.config import load_config
from dmp_core.diffusion import DMPPipeline
from dmp_core.errors import InputError
from dmp_core.methods.dmp.predict import load_predictor, predict_batch
from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.modalities.settings import ScalarModality
from dmp_core.requests import predict_files as request
from dmp_core.requests.predictor import Manner, Predictor, find_targets
from dmp_core.resources import manifest_root
from dmp_core.weights.adapters import adapter_folder

SIZE = (40, 56)


def photo(file: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """Smooth blobs: something that a resized photo could be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(file)
    return file


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """All five modalities of the mini preset; loaded once."""
    return Predictor.from_preset("mini")


@pytest.fixture
def run(predictor: Predictor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`dmp predict` with the models that are loaded already; returns the lines of --json."""
    known = {target.modality.name: target for target in predictor.targets}

    def command(*arguments: object) -> list[dict[str, Any]]:
        app(["predict", *map(str, arguments), "--json"], standalone_mode=False)
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def pipeline(self: Predictor, target: Any, dtype: str) -> Any:
        return predictor_pipeline(predictor, known[target.modality.name], dtype)

    predictor_pipeline = Predictor._pipeline
    monkeypatch.setattr(Predictor, "_pipeline", pipeline)
    return command


# ------------------------------------------------------------------------------- the same arrays
def test_together_they_are_bit_for_bit_what_each_is_alone(predictor: Predictor, tmp_path: Path) -> None:
    """Alone: an own copy of the base model that encodes the image itself, as the stages do."""
    image = np.asarray(Image.open(photo(tmp_path / "x.png")))
    together = predictor(image)
    assert list(together) == list(BUILT_IN)
    for target in predictor.targets:
        name, config = target.modality.name, target.config
        alone = predict_batch(
            load_predictor(config.base, adapter_folder(target.adapter)), image[None], name, config.sampling,
            code=config.latents.code, resolution=config.latents.resolution_of(name),
        )  # fmt: skip
        assert together[name].shape[:2] == SIZE
        np.testing.assert_array_equal(together[name], alone[0], strict=True)


def test_the_base_is_loaded_once_and_its_weights_are_shared(predictor: Predictor) -> None:
    predictor.load()
    assert len(predictor._bases) == 1
    pipelines = list(predictor._pipelines.values())
    assert len(pipelines) == len(BUILT_IN)
    assert len({id(one.vae) for one in pipelines}) == 1
    sizes = [{p.data_ptr(): p.numel() for p in one.unet.parameters()} for one in pipelines]
    common = set.intersection(*(set(size) for size in sizes))
    assert sum(sizes[0][pointer] for pointer in common) > 0.7 * sum(sizes[0].values())
    (base,) = predictor._bases.values()
    assert not any(".lora_" in name for name, _ in base.unet.named_parameters())


def test_a_list_of_images_gives_lists_of_any_sizes(predictor: Predictor, tmp_path: Path) -> None:
    files = [photo(tmp_path / "x.png"), photo(tmp_path / "y.png", 1, (48, 40))]
    found = predictor(files)
    assert [array.shape for array in found["depth"]] == [SIZE, (48, 40)]
    with Image.open(files[1]) as image:
        np.testing.assert_array_equal(predictor(image)["normal"], found["normal"][1])
    with pytest.raises(InputError, match=r"images\[0\]: float64 .*; give a path"):
        predictor(np.zeros((4, 4)))


def test_shipped_models_load_by_name(tmp_path: Path) -> None:
    pipeline = DMPPipeline.from_pretrained("shipped:mini", adapter="shipped:normal")
    assert pipeline.card.task == "normal"
    with pytest.raises(InputError, match=r"base: shipped:maxi: no such model ships .* there are: mini"):
        DMPPipeline.from_pretrained("shipped:maxi")
    with pytest.raises(InputError, match=r"adapter: shipped:smell: .* there are: albedo, depth"):
        DMPPipeline.from_pretrained("shipped:mini", adapter="shipped:smell")
    with Image.open(photo(tmp_path / "x.png")) as image:
        assert pipeline(image, output_type="label").images.shape == (1, *SIZE, 3)


# ---------------------------------------------------------------------------------- what to predict
def test_the_presets_modalities_and_adapters_are_the_default() -> None:
    targets = find_targets("mini")
    assert [target.modality.name for target in targets] == load_config("mini").modalities
    assert [target.adapter for target in targets] == [f"shipped:{target.modality.name}" for target in targets]
    assert [target.modality.name for target in find_targets("mini", modalities=["depth", "normal"])] == [
        "depth",
        "normal",
    ]
    assert find_targets(adapters=["shipped:albedo", "shipped:depth"])[1].modality.name == "depth"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"preset": "paper"}, r"adapters\.normal: preset paper has no finished adapter"),
        ({"modalities": ["smell"]}, "modality 'smell' is unknown"),
        ({"modalities": ["depth", "depth"]}, "depth twice"),
        ({"modalities": ["depth", "normal"], "adapters": ["shipped:depth"]}, "--adapter: 1 for 2 modalities"),
        ({"adapters": ["shipped:depth", "shipped:depth"]}, "depth twice"),
    ],
)
def test_what_cannot_be_predicted_is_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        find_targets(**arguments)


# --------------------------------------------------------------------------------- files, resume
def test_folders_and_patterns_are_searched_and_results_are_no_images(run: Any, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("a.png", "b.jpg", "below/a.png", "a.normal.png", "a.albedo.png", ".hidden.png"):
        photo(photos / name)
    (photos / "notes.txt").write_text("no image")
    *lines, summary = run(photos, "-m", "normal", "--out", photos, "--uncertainty")
    assert [line["image"] for line in lines] == [str(photos / name) for name in ("a.png", "b.jpg", "below/a.png")]
    assert (photos / "below" / "a.normal.pred.png").is_file()
    assert summary["summary"]["made"] == 3
    *lines, _ = run(photos, "-m", "normal", "--out", photos, "--uncertainty")
    assert [line["made"] for line in lines] == [False] * 3
    for pattern in ("*.png", "[ab].png"):
        *lines, _ = run(f"{photos}/{pattern}", "-m", "normal", "--out", tmp_path / "out")
        assert [line["image"] for line in lines] == [str(photos / "a.png")]
    *lines, _ = run(photos, "-m", "depth", "--out", tmp_path / "depth")
    assert [line["image"] for line in lines] == [str(photos / name) for name in ("a.png", "b.jpg", "below/a.png")]
    *lines, _ = run(photos, "-m", "normal", "--out", photos / "results")
    *again, _ = run(photos, "-m", "normal", "--out", photos / "results")
    assert [line["image"] for line in lines] == [line["image"] for line in again]
    (tmp_path / "empty").mkdir()
    for empty in ("empty", "nothing*.png"):
        with pytest.raises(InputError, match="no image there; give PNG"):
            run(tmp_path / empty)


def test_what_is_there_is_kept_and_what_has_changed_is_made_again(run: Any, tmp_path: Path) -> None:
    first, second, out = photo(tmp_path / "x.png"), photo(tmp_path / "y.png", 1), tmp_path / "out"
    run(first, "-m", "depth", "--out", out)
    before = (out / "x.depth.view.png").stat().st_mtime_ns
    lines = run(first, second, "-m", "depth", "--out", out)
    assert [line["made"] for line in lines[:-1]] == [False, True]
    assert lines[-1]["summary"]["already_there"] == 1
    assert (out / "x.depth.view.png").stat().st_mtime_ns == before
    for changed in (("--overwrite",), ("--processing-res", 32), ("--set", "sampling.mirrored=false")):
        assert [line["made"] for line in run(first, "-m", "depth", "--out", out, *changed)[:-1]] == [True], changed
    photo(first, seed=7)
    assert run(first, "-m", "depth", "--out", out)[0]["made"]
    (out / "x.depth.view.png").unlink()
    assert run(first, "-m", "depth", "--out", out)[0]["made"]


def test_overwrite_replaces_only_our_files(run: Any, tmp_path: Path) -> None:
    image, out = photo(tmp_path / "x.png"), tmp_path / "out"
    out.mkdir()
    theirs = photo(out / "x.depth.pred.png").read_bytes()
    with pytest.raises(InputError, match=r"x\.depth\.pred\.png: exists, and `dmp predict` did not write it"):
        run(image, "-m", "depth", "--out", out, "--overwrite")
    assert (out / "x.depth.pred.png").read_bytes() == theirs


def test_results_of_an_older_version_are_made_again(run: Any, tmp_path: Path) -> None:
    image, out = photo(tmp_path / "x.png"), tmp_path / "out"
    run(image, "-m", "normal", "--out", out)
    index = out / request.INDEX
    entries = [json.loads(line) for line in index.read_text().split("\n") if line]
    index.write_text("\n".join(json.dumps({key: entry[key] for key in ("file", "sha256")}) for entry in entries))
    assert run(image, "-m", "normal", "--out", out)[0]["made"]


def test_the_png_of_depth_states_its_unit(run: Any, tmp_path: Path) -> None:
    image, out = photo(tmp_path / "x.png"), tmp_path / "out"
    run(image, "-m", "depth", "--out", out)
    metres = np.load(out / "x.depth.pred.npy").astype(np.float64)
    with Image.open(out / "x.depth.pred.png") as png:
        text, codes = png.text, np.asarray(png)
    assert codes.dtype == np.uint16
    assert (text["unit"], float(text["scale"]), float(text["offset"])) == ("metres", 0.001, 0)
    np.testing.assert_allclose(codes / 1000, metres, atol=0.0006, rtol=2**-10)
    depth = find_modality("depth")
    codes = np.asarray(Image.open(_bytes(depth.png16(np.array([[np.inf, -1, 0.0004, 1.5, 70]])))))
    assert codes.tolist() == [[0, 0, 1, 1500, 65535]]


def test_the_png_of_an_own_scalar_has_its_range() -> None:
    heat = find_modality("heat", ScalarModality(range=(-20, 60), unit="°C"))
    label = np.array([[-20, 0, 60, np.nan]], dtype=np.float32)
    with Image.open(_bytes(heat.png16(label))) as png:
        text, codes = png.text, np.asarray(png).astype(float)
    values = float(text["offset"]) + float(text["scale"]) * codes
    np.testing.assert_allclose(values[0, :3], [-20, 0, 60], atol=0.001)
    assert codes[0, 3] == 0


def _bytes(data: bytes) -> Any:
    import io

    return io.BytesIO(data)


# ----------------------------------------------------------------------------- uncertainty, tiles
def test_uncertainty_is_the_difference_of_the_mirrored_prediction(predictor: Predictor, tmp_path: Path) -> None:
    image = np.asarray(Image.open(photo(tmp_path / "x.png")))
    targets = [target for target in predictor.targets if target.modality.name in ("normal", "segmentation")]
    unsure = Predictor(targets, Manner(uncertainty=True), predictor._bases, predictor._pipelines)
    found, plain = unsure(image), predictor(image)
    single = Predictor.from_preset("mini", ["normal", "segmentation"], overrides=["sampling.mirrored=false"])
    single._bases, single._pipelines = predictor._bases, predictor._pipelines
    own, other = single(image), single(np.ascontiguousarray(image[:, ::-1]))
    for target in targets:
        name, modality = target.modality.name, target.modality
        np.testing.assert_array_equal(found[name], plain[name])  # asking for it changes nothing
        expected = modality.error_map(modality.mirror(other[name]), own[name])
        same = np.isclose(found[f"{name}.uncertainty"], expected, atol=0.5)
        assert same.mean() > 0.97, name  # resizing and mirroring do not commute exactly
    assert found["normal.uncertainty"].mean() > 0.1


def test_one_tile_is_the_whole_image_and_many_are_close_to_it(predictor: Predictor, tmp_path: Path) -> None:
    image = np.asarray(Image.open(photo(tmp_path / "x.png", size=(64, 96))))

    def depth(**manner: Any) -> np.ndarray:
        target = next(target for target in predictor.targets if target.modality.name == "depth")
        return Predictor([target], Manner(**manner), predictor._bases, predictor._pipelines)(image)["depth"]

    whole = depth(processing_res=64)
    np.testing.assert_array_equal(depth(tile=96), whole)
    tiled = depth(tile=64, overlap=32)
    assert tiled.shape == whole.shape
    assert not np.array_equal(tiled, whole)
    assert np.abs(np.diff(tiled, axis=1)).max() < 2 * np.abs(np.diff(whole, axis=1)).max()  # no seam
    for wrong, reason in (({"tile": 60}, "a multiple of 8"), ({"tile": 64, "overlap": 64}, "less than the tile's 64")):
        with pytest.raises(InputError, match=reason):
            depth(**wrong)


# --------------------------------------------------------------------------------------- speed
def test_progress_has_a_rate_and_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from dmp_core.cli.predict import _Pace

    now = iter([10.0, 12.0, 14.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr(time, "time", lambda: 1_000.0)
    pace = _Pace()
    assert pace(9) == ""
    pace(8)
    assert pace(7) == f"0.5/s, ends {time.strftime('%H:%M:%S', time.localtime(1014))}"


# -------------------------------------------------------------------------------- the documentation
@pytest.mark.parametrize("number", range(2))
def test_the_examples_of_the_documentation_run(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).resolve().parents[2]
    examples = re.findall(r"^```python\n(.*?)^```", (root / "docs/predict.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) == 2
    photo(tmp_path / "photo.jpg")
    (tmp_path / "data_manifests").symlink_to(manifest_root())
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(examples[number], found)
    if number == 0:
        assert set(found["maps"]) == set(BUILT_IN)
        assert found["maps"]["depth"].shape == SIZE


# ------------------------------------------------------------------------ plain diffusers and peft
def test_a_shipped_adapter_opens_with_plain_diffusers_and_peft() -> None:
    from diffusers import UNet2DConditionModel
    from peft import PeftModel

    unet = UNet2DConditionModel.from_pretrained(manifest_root() / "priors" / "mini", subfolder="unet")
    unet = PeftModel.from_pretrained(unet, manifest_root() / "adapters" / "normal").eval()
    own = DMPPipeline.from_pretrained("shipped:mini", adapter="shipped:normal")
    x = torch.randn(1, own.unet.config.in_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    text, t = own.encode_prompt("").float(), torch.tensor([999])
    with torch.no_grad():
        theirs, ours = (network(x, t, encoder_hidden_states=text).sample for network in (unet, own.unet))
    torch.testing.assert_close(theirs, ours)
