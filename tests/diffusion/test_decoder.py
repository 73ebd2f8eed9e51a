"""A small decoder of latents, `sampling.decoder`: what it decodes, where it counts, and which are refused."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from safetensors.torch import load_file, save_file

from dmp_core.config import load_config
from dmp_core.diffusion import DMPPipeline
from dmp_core.diffusion.decoder import check_decoder
from dmp_core.diffusion.labels import vae_ceiling
from dmp_core.diffusion.settings import SamplingConfig
from dmp_core.errors import InputError
from dmp_core.methods.dmp.predict import load_predictor, predict_batch
from dmp_core.methods.protocol import Inference, Problem
from dmp_core.methods.shared.generation import predictor_of
from dmp_core.modalities import Code, find_modality
from dmp_core.requests.predictor import Predictor
from dmp_core.resources import manifest_path, manifest_root
from dmp_core.stages import execute, find, plan
from dmp_core.stages.preflight import check_models, models_of
from dmp_core.store import Workspace, read_artefact
from dmp_core.weights.load import load_base, load_decoder, load_vae
from dmp_core.weights.settings import BaseConfig

MINI = BaseConfig(model="shipped:mini")
SMOKE = [
    "modalities=[albedo]", "adapters={albedo: 'shipped:albedo'}", "runtime.workers=1",
    "images={resolution: 32, samples_per_pixel: 1, max_depth: 2}", "runtime.device=cpu",
]  # fmt: skip
WIDTHS = (8, 8, 8, 8)


def write_decoder(folder: Path, channels: int = 32, levels: int = 4, **options: Any) -> Path:
    """A network of the published ones' kind, with random weights; by default for the mini prior's latents."""
    torch.manual_seed(5)
    network = AutoencoderTiny(
        encoder_block_out_channels=WIDTHS[:levels], decoder_block_out_channels=WIDTHS[:levels],
        num_encoder_blocks=(1,) * levels, num_decoder_blocks=(1,) * levels, latent_channels=channels, **options,
    )  # fmt: skip
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tmp_path_factory.mktemp("decoder") / "small")


def photos(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@torch.no_grad()
def by_hand(decoder: Path, latents: torch.Tensor) -> np.ndarray:
    """Albedo of the latents as the U-Net gives them, through diffusers alone: AutoencoderTiny takes them unscaled."""
    image = AutoencoderTiny.from_pretrained(decoder).decode(latents).sample
    return (image / 2 + 0.5).clamp(0, 1).movedim(1, -1).numpy()


# ---------------------------------------------------------------------------------- what it decodes
def test_predictions_are_latents_decoded_by_it_wherever_they_are_made(decoder: Path, tmp_path: Path) -> None:
    adapter, images = manifest_root() / "adapters" / "albedo", photos()
    overrides = [f"sampling.decoder={decoder}", "sampling.mirrored=false"]
    config = load_config("mini", None, overrides)
    plain = load_predictor(MINI, adapter)
    pixels = torch.from_numpy(images).movedim(-1, 1).float() / 255
    latents = plain(pixels, resolution="input", output_type="latent").latents
    expected = by_hand(decoder, latents)

    small = load_predictor(MINI, adapter, decoder=str(decoder))
    np.testing.assert_allclose(predict_batch(small, images, "albedo", config.sampling), expected, atol=1e-5)
    for kind in ("np", "label"):
        found = small(pixels, resolution="input", output_type=kind).images
        np.testing.assert_allclose(found, expected, atol=1e-5)
    own = DMPPipeline.from_pretrained("shipped:mini", adapter, decoder=AutoencoderTiny.from_pretrained(decoder))
    np.testing.assert_allclose(own(pixels, resolution="input", output_type="np").images, expected, atol=1e-5)
    predictor = Predictor.from_preset("mini", ["albedo"], overrides=overrides, processing_res=32)
    np.testing.assert_allclose(np.stack(predictor(list(images))["albedo"]), expected, atol=1e-5)
    assert np.abs(predict_batch(plain, images, "albedo", config.sampling) - expected).mean() > 0.05


def test_methods_that_generate_latents_decode_with_it(decoder: Path) -> None:
    vae, latents = load_vae(MINI), torch.randn(2, 32, 4, 4, generator=torch.Generator().manual_seed(1))
    problem = Problem(find_modality("albedo"), MINI)
    predict = predictor_of(vae, problem, Inference(SamplingConfig(decoder=str(decoder))), lambda images, keys: latents)
    np.testing.assert_allclose(predict(photos(), ["a", "b"]), by_hand(decoder, latents), atol=1e-5)


@torch.no_grad()
def test_the_ceiling_of_labels_is_that_of_the_decoder(decoder: Path) -> None:
    vae = load_vae(MINI)
    albedo = np.random.default_rng(1).random((2, 32, 32, 3)).astype(np.float32)
    latents = vae.encode(torch.from_numpy(albedo).movedim(-1, 1) * 2 - 1).latent_dist.mode()
    found = vae_ceiling(vae, albedo, "albedo", code=Code(), decoder=load_decoder(str(decoder), vae))
    np.testing.assert_allclose(found, by_hand(decoder, latents * vae.config.scaling_factor), atol=1e-5)


def test_it_follows_the_base_to_its_precision_and_is_saved_with_it(decoder: Path, tmp_path: Path) -> None:
    base = load_base(MINI, dtype=torch.bfloat16, decoder=str(decoder))
    assert base.decoder.dtype == base.vae.dtype == torch.bfloat16
    assert base.to(torch.float32).decoder.dtype == torch.float32
    base.save_pretrained(tmp_path / "both")
    assert DMPPipeline.from_pretrained(tmp_path / "both").decoder is not None
    # The setting decides, not what a folder holds besides the base's own parts.
    assert load_base(BaseConfig(model=str(tmp_path / "both"))).decoder is None


def test_the_stage_predicts_with_it_and_its_fingerprint_names_its_weights(decoder: Path, tmp_path: Path) -> None:
    place, name = str(tmp_path / "w"), "predict/arbitrary-albedo-dmp"
    plain, small = (load_config("smoke", None, [*SMOKE, *more]) for more in ([], [f"sampling.decoder={decoder}"]))
    for made in ("prompts/arbitrary", "images/arbitrary", "train/albedo-dmp", name):
        execute(small, made, place)
    before, after = ({node.id: node.fingerprint for node in plan(config)} for config in (plain, small))
    changed = {node for node in after if before[node] != after[node]}
    assert {node.partition("/")[0] for node in changed} == {"predict", "evaluate", "report"}
    assert "predict/in_domain-albedo-ceiling" in changed
    shard, labels = (
        [*read_artefact(find(plan(small), node).artefact(Workspace(place)))] for node in ("images/arbitrary", name)
    )
    images = np.stack([np.asarray(Image.open(io.BytesIO(sample["png"]))) for sample in shard])
    pipeline = load_predictor(MINI, manifest_root() / "adapters" / "albedo", decoder=str(decoder))
    expected = predict_batch(pipeline, images, "albedo", small.sampling, resolution=small.latents.resolution)
    albedo = find_modality("albedo")
    for sample, label in zip(labels, expected, strict=True):
        np.testing.assert_allclose(albedo.decode(sample[albedo.member]), label, atol=0.005)  # eight bits


def test_a_fingerprint_names_the_decoders_weights(decoder: Path, tmp_path: Path) -> None:
    weights, fingerprints = load_file(decoder / "diffusion_pytorch_model.safetensors"), set()
    place = tmp_path / "same"
    shutil.copytree(decoder, place)
    for factor in (1, 2):
        scaled = {key: value * factor for key, value in weights.items()}
        save_file(scaled, place / "diffusion_pytorch_model.safetensors")
        config = load_config("smoke", None, [*SMOKE, f"sampling.decoder={place}"])
        fingerprints.add(find(plan(config), "predict/arbitrary-albedo-dmp").fingerprint)
    assert len(fingerprints) == 2


# ------------------------------------------------------------------------------- which are refused
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "channels": ({"channels": 16}, "it decodes latents of 16 channels, and base.model makes latents of 32"),
    "size": ({"levels": 3}, "it makes 4 pixels of a latent's side, and base.model has 8"),
    "scaling": ({"scaling_factor": 0.18215}, "it scales latents by 0.18215 and shifts them by 0"),
    "colours": ({"out_channels": 1}, "it makes images of 1 channels, not 3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_that_does_not_fit_the_base_is_refused_before_any_work(case: str, tmp_path: Path) -> None:
    options, why = WRONG[case]
    folder = write_decoder(tmp_path / "wrong", **options)
    line = rf"^sampling\.decoder: {re.escape(str(folder))} cannot decode: {why}.*give an AutoencoderTiny"
    config = load_config("smoke", None, [*SMOKE, f"sampling.decoder={folder}"])
    with pytest.raises(InputError, match=line):
        plan(config)
    with pytest.raises(InputError, match=line):
        load_decoder(str(folder), load_vae(MINI))
    with pytest.raises(InputError, match=line):
        Predictor.from_preset("mini", ["albedo"], overrides=[f"sampling.decoder={folder}"]).load()
    parts = load_base(MINI).components | {"decoder": AutoencoderTiny.from_pretrained(folder)}
    with pytest.raises(InputError, match=why):
        DMPPipeline(**parts)


def test_what_is_no_small_decoder_is_refused(decoder: Path, tmp_path: Path) -> None:
    def refused(place: object, why: str) -> None:
        config = load_config("smoke", None, [*SMOKE, f"sampling.decoder={place}"])
        with pytest.raises(InputError, match=rf"^sampling\.decoder: .*{why}"):
            check_models(plan(config))

    refused(tmp_path / "missing", "no such folder")
    refused(manifest_path("priors", "mini") / "vae", "an AutoencoderKL, not an AutoencoderTiny")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no diffusers model")
    for name, change in {
        "cut": lambda tensors: tensors.pop(sorted(tensors)[0]),
        "other": lambda tensors: tensors.update({sorted(tensors)[0]: torch.zeros(3)}),
    }.items():
        shutil.copytree(decoder, tmp_path / name)
        tensors = load_file(tmp_path / name / "diffusion_pytorch_model.safetensors")
        change(tensors)
        save_file(tensors, tmp_path / name / "diffusion_pytorch_model.safetensors")
        refused(tmp_path / name, "weights and config.json do not match")
        with pytest.raises(InputError, match=r"^sampling\.decoder: "):
            load_decoder(str(tmp_path / name), load_vae(MINI))
    with pytest.raises(InputError, match="decoder"):
        load_config("smoke", None, [*SMOKE, "sampling.decoder=''"])


def test_published_decoders_fit_their_bases_and_no_others() -> None:
    """`config.json` of taesd and taef1, and of the autoencoders of Stable Diffusion 1 and of Flux."""
    blocks = [128, 256, 512, 512]
    sd = {"latent_channels": 4, "block_out_channels": blocks, "scaling_factor": 0.18215}
    flux = {"latent_channels": 16, "block_out_channels": blocks, "scaling_factor": 0.3611, "shift_factor": 0.1159}
    published = {
        "_class_name": "AutoencoderTiny", "decoder_block_out_channels": [64] * 4, "num_decoder_blocks": [3, 3, 3, 1],
        "out_channels": 3, "scaling_factor": 1.0, "upsampling_scaling_factor": 2,
    }  # fmt: skip
    taesd, taef1 = published | {"latent_channels": 4}, published | {"latent_channels": 16, "shift_factor": 0.0}
    check_decoder("taesd", taesd, sd)
    check_decoder("taef1", taef1, flux)
    for decoder, vae in ((taef1, sd), (taesd, flux)):
        with pytest.raises(InputError, match="channels"):
            check_decoder("it", decoder, vae)


def test_the_registrys_decoder_is_listed_with_the_models_of_a_run() -> None:
    for name in ("taesd", "madebyollin/taesd"):
        config = load_config("paper", None, [f"sampling.decoder={name}"])
        known, others = models_of(plan(config))
        assert known["taesd"] == ["sampling.decoder"]
        assert not others
        hashes = {getattr(node.config, "decoder_hash", None) for node in plan(config) if node.stage == "predict"}
        assert hashes == {"madebyollin/taesd@614f76814bbe30edbe2e627ace1c2234c81a2c0e"}
