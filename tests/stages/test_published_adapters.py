"""Adapters as the paper's authors publish them: a folder by their name, one file of LoRA matrices, no card."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dmp_core.cli import app
from dmp_core.config import load_config
from dmp_core.config.presets import validate
from dmp_core.diffusion import DMPPipeline
from dmp_core.diffusion.card import read_card
from dmp_core.errors import InputError
from dmp_core.modalities import find_modality
from dmp_core.requests.predictor import prediction_config
from dmp_core.stages import find, plan
from dmp_core.store import Workspace
from tests.golden.tiny_sd import write_base
from tests.making import make

LORA = Path(__file__).parents[1] / "data/golden/tiny_lora/pytorch_lora_weights.safetensors"
SIDE = 64


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "tiny_sd")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the authors' `ckpt`, and a photo."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMP_MODELS_DIR", str(tmp_path / "models"))
    rgb = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "photo.png")
    return tmp_path


def publish(name: str, root: Path = Path("ckpt")) -> Path:
    """As the published training script saves it."""
    folder = root / name
    folder.mkdir(parents=True)
    torch.save(load_file(LORA), folder / "pytorch_lora_weights.bin")
    return folder


def predict(adapter: str | Path, base: Path, *more: str) -> None:
    given = ["--set", f"base.model={base}", "--out", "out", *more]
    app(["predict", "photo.png", "--adapter", str(adapter), *given], standalone_mode=False)


def decoded(base: Path, folder: Path) -> np.ndarray:
    """What the VAE decodes under the paper's settings, channels last, nominally in [-1, 1]."""
    pipeline = DMPPipeline.from_pretrained(base)
    pipeline.load_adapter(folder)
    settings = {"num_inference_steps": 5, "source": "oracle", "resolution": SIDE, "output_type": "latent"}
    latents = pipeline(Image.open("photo.png"), **settings).latents
    with torch.no_grad():
        image = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return image[0].movedim(0, -1).numpy()


@pytest.mark.parametrize("reference", ["normal-scene100-notext", "ckpt/normal-scene100-notext"])
def test_published_normals_are_right_up_and_toward(here: Path, base: Path, reference: str) -> None:
    """One command by the authors' name: modality, axes, steps and base model follow from it."""
    folder = publish("normal-scene100-notext")
    predict(reference, base, "--set", "sampling.mirrored=false", "--set", f"latents.resolution={SIDE}")
    found = find_modality("normal").decode((here / "out" / "photo.normal.pred.png").read_bytes())
    expected = decoded(base, folder) * [1, -1, -1]
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    angle = np.degrees(np.arccos(np.clip((found * expected).sum(-1), -1, 1)))
    assert angle.max() < 1.5  # 8 bits


def test_published_depth_is_eight_times_the_decoded_image_and_not_clipped(here: Path, base: Path) -> None:
    folder = publish("depth-hypersim-notext", here / "models")  # pulled to where models are
    predict("depth-hypersim-notext", base, "--set", "sampling.mirrored=false", "--set", f"latents.resolution={SIDE}")
    found = find_modality("depth").decode((here / "out" / "photo.depth.pred.npy").read_bytes())
    metres = 8 * (decoded(base, folder).mean(-1) / 2 + 0.5).clip(0)
    np.testing.assert_allclose(found, metres, rtol=2e-3, atol=2e-3)
    assert prediction_config("mini", None, None, "depth-hypersim-notext", None)[0].latents.depth_clip is False


def test_the_name_says_what_its_card_would(here: Path) -> None:
    names = {
        "normal-scene100-notext": ("normal", False), "depth-hypersim-notext": ("depth", False),
        "seg-bedroom": ("segmentation", True), "albedo-bedroom": ("albedo", True), "sha-x-notext": ("shading", False),
    }  # fmt: skip
    for name, (modality, captions) in names.items():
        config, found = prediction_config("mini", None, None, str(publish(name)), None)
        card = read_card(Path("ckpt") / name)
        assert (found.name, card.captioned) == (modality, captions)
        assert config.base.model == "CompVis/stable-diffusion-v1-4"
        assert (config.sampling.num_steps, config.sampling.source) == (5, "oracle")  # mini's: 1, estimated
    assert prediction_config("mini", None, None, "seg-bedroom", None)[0].latents.palette == "dmp2"
    assert prediction_config("paper", None, None, "seg-bedroom", None)[0].latents.decoded_classes == "paper"
    with pytest.raises(InputError, match=r"by its name: it was trained for normal, not for depth"):
        prediction_config("mini", None, None, "normal-scene100-notext", "depth")
    with pytest.raises(InputError, match=r"its name in ckpt/ or .*models, or shipped:NAME"):
        prediction_config("mini", None, None, "normal-scene101-notext", None)


def test_an_unknown_name_needs_the_modality_and_no_more(here: Path, base: Path) -> None:
    folder = publish("mine")
    with pytest.raises(InputError, match="give --modality NAME"):
        prediction_config("mini", None, None, str(folder), None)
    config, modality = prediction_config("mini", None, None, str(folder), "depth")
    assert (modality.name, config.base.model) == ("depth", "shipped:mini")
    assert (config.sampling.num_steps, config.latents.depth_clip) == (5, False)


def test_one_trained_with_captions_is_run_without_or_with_those_next_to_the_images(
    here: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish("normal-bedroom")
    small = ("--preset", "paper", "--set", f"latents.resolution={SIDE}", "--set", "sampling.dtype=float32")
    with caplog.at_level(logging.WARNING, "dmp_core"):
        predict("normal-bedroom", base, *small)
    assert "trained with captions, and run without" in caplog.text
    without = (here / "out" / "photo.normal.pred.png").read_bytes()
    captioned = (*small, "--set", "sampling.use_prompt=true")
    with pytest.raises(
        InputError, match=r"photo\.txt: missing, and sampling\.use_prompt needs the caption of photo\.png"
    ):
        predict("normal-bedroom", base, *captioned)
    (here / "photo.txt").write_text("a red bed\n")
    predict("normal-bedroom", base, *captioned)
    assert (here / "out" / "photo.normal.pred.png").read_bytes() != without


def test_a_run_with_a_published_adapter_reaches_its_report(here: Path, base: Path) -> None:
    publish("normal-scene100-notext")
    settings = load_config("smoke", None, ["modalities=[normal]", "runtime.workers=1"]).model_dump(mode="json")
    settings["splits"] = {name: settings["splits"][name] | {"count": 1} for name in ("train", "in_domain")}
    settings["base"] = {"model": str(base)}
    settings["sampling"] |= {"num_steps": 2, "mirrored": False}
    settings["adapters"] = {"normal": "ckpt/normal-scene100-notext"}
    config = validate(settings, "test")
    make("w", config)
    installed = find(plan(config), "train/normal-dmp").artefact(Workspace("w"))
    assert json.loads(installed.read_bytes("dmp.json"))["encoding"] == {"axes": "right, down, away"}
    assert "finished adapter" in Path("w/report/index.html").read_text()
    moved = shutil.copytree(installed.local_path(), here / "elsewhere")  # its card goes with it
    assert prediction_config("mini", None, None, str(moved), None)[1].name == "normal"


def test_one_trained_without_captions_is_not_run_with_them(here: Path, base: Path) -> None:
    publish("normal-scene100-notext")
    given = ["modalities=[normal]", "adapters={normal: normal-scene100-notext}"]
    message = r"adapters\.normal: normal-scene100-notext: trained without captions; set sampling\.use_prompt=false"
    with pytest.raises(InputError, match=message):
        plan(load_config("paper", None, given))
    plan(load_config("paper-practical", None, given))
