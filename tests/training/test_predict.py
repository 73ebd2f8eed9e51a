"""Inference over arrays, and loading base models."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from dmp_core.diffusion import Schedule, decode_latents, encode_images, sample
from dmp_core.diffusion.labels import vae_ceiling
from dmp_core.diffusion.settings import SamplingConfig
from dmp_core.errors import InputError
from dmp_core.methods.dmp.finetune import finetune
from dmp_core.methods.dmp.predict import load_predictor, predict_batch
from dmp_core.modalities import BUILT_IN, Code, find_modality
from dmp_core.weights.load import load_base, load_vae
from dmp_core.weights.settings import BaseConfig
from tests.training.conftest import toy_pairs
from tests.training.test_finetune import CONFIG

SETTINGS = {"code": Code()}


@pytest.fixture(scope="module")
def predictor(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictor")
    config = CONFIG.model_copy(update={"steps": 4})
    base = load_base(BaseConfig(model=str(tiny_folder)))
    result = finetune(config, base, toy_pairs(), folder / "work", folder / "out")
    return load_predictor(BaseConfig(model=str(tiny_folder)), result.folder)


def rgb(count: int = 3, size: tuple[int, int] = (16, 16)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


@pytest.mark.parametrize("task", BUILT_IN)
def test_predictions_are_labels_in_the_images_size(predictor, task):
    labels = predict_batch(predictor, rgb(size=(20, 28)), task, SamplingConfig(num_steps=2), resolution=16, **SETTINGS)
    assert labels.shape[:3] == (3, 20, 28)
    for label in labels:
        find_modality(task).decode(find_modality(task).encode(label))


@torch.no_grad()
def test_prediction_is_equation_4_on_the_adapted_network(predictor):
    images = rgb()
    labels = predict_batch(predictor, images, "albedo", SamplingConfig(num_steps=3, source="estimated"), **SETTINGS)
    x = encode_images(predictor.vae, torch.from_numpy(images).movedim(-1, 1).float() / 255)
    text = predictor.encode_prompt("").expand(3, -1, -1)
    y = sample(
        lambda y_t, t: predictor.unet(y_t, t, encoder_hidden_states=text).sample,
        x, Schedule.stable_diffusion(), 3, "v", "estimated",
    )  # fmt: skip
    expected = find_modality("albedo").from_image(decode_latents(predictor.vae, y) * 2 - 1, Code(depth_scale=8.0))
    np.testing.assert_allclose(labels, expected, atol=1e-4)


def test_timesteps_may_differ_from_those_of_training(predictor):
    settings = {"num_steps": 1, "source": "estimated"}
    images = rgb()
    leading, trailing = (
        predict_batch(predictor, images, "albedo", SamplingConfig(**settings, spacing=spacing), **SETTINGS)
        for spacing in (None, "trailing")
    )
    x = encode_images(predictor.vae, torch.from_numpy(images).movedim(-1, 1).float() / 255)
    text = predictor.encode_prompt("").expand(3, -1, -1)
    y = sample(
        lambda y_t, t: predictor.unet(y_t, t, encoder_hidden_states=text).sample,
        x, Schedule.stable_diffusion(spacing="trailing"), 1, "v", "estimated",
    )  # fmt: skip
    with torch.no_grad():
        expected = find_modality("albedo").from_image(decode_latents(predictor.vae, y) * 2 - 1, Code(depth_scale=8.0))
    np.testing.assert_allclose(trailing, expected, atol=1e-4)
    assert np.abs(leading - trailing).max() > 0.01


def test_an_adapter_trained_in_bfloat16_runs_in_any_precision(tiny_folder, tmp_path):
    config = CONFIG.model_copy(update={"steps": 2, "mixed_precision": "bf16"})
    settings = BaseConfig(model=str(tiny_folder))
    result = finetune(config, load_base(settings, dtype=torch.bfloat16), toy_pairs(), tmp_path / "w", tmp_path / "o")
    sampling = SamplingConfig(num_steps=2)
    whole, rounded = (
        predict_batch(load_predictor(settings, result.folder, dtype=dtype), rgb(), "depth", sampling, **SETTINGS)
        for dtype in ("float32", "bfloat16")
    )
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - whole).mean() < 0.1  # of 8 metres


def test_batches_do_not_mix(predictor):
    images = rgb(4)
    together = predict_batch(predictor, images, "depth", SamplingConfig(num_steps=1), **SETTINGS)
    alone = predict_batch(predictor, images[2:3], "depth", SamplingConfig(num_steps=1), **SETTINGS)
    np.testing.assert_allclose(together[2:3], alone, atol=1e-4)


def test_captions_change_the_prediction(predictor):
    sampling = SamplingConfig(num_steps=1, use_prompt=True, guidance_scale=2.0)
    one = predict_batch(predictor, rgb(1), "albedo", sampling, prompts=["a red bed"], **SETTINGS)
    other = predict_batch(predictor, rgb(1), "albedo", sampling, prompts=["the blue sea"], **SETTINGS)
    assert not np.allclose(one, other, atol=1e-6)
    with pytest.raises(InputError, match=r"sampling\.use_prompt: needs one prompt per image"):
        predict_batch(predictor, rgb(1), "albedo", sampling, **SETTINGS)


@pytest.mark.parametrize("task", BUILT_IN)
def test_mirrored_predictions_of_a_mirrored_image_are_the_mirrored_ones(predictor, task):
    """The network's alone are not; segmentation does not use it."""
    images = rgb()

    def apart(mirrored: bool) -> float:
        sampling = SamplingConfig(num_steps=1, mirrored=mirrored)
        plain = predict_batch(predictor, images, task, sampling, **SETTINGS)
        other = predict_batch(predictor, np.ascontiguousarray(images[:, :, ::-1]), task, sampling, **SETTINGS)
        return max(
            np.abs(find_modality(task).mirror(b).astype(float) - a).max() for a, b in zip(plain, other, strict=True)
        )

    assert apart(mirrored=False) > 0.01
    assert (apart(mirrored=True) < 1e-4) == (task != "segmentation")


def test_colour_noise_uses_the_cards_shares(predictor):
    sampling = SamplingConfig(num_steps=1, colour_noise=0.15)
    with pytest.raises(InputError, match=r"sampling\.colour_noise: .* no class_shares; train it again"):
        predict_batch(predictor, rgb(), "segmentation", sampling, **SETTINGS)
    assert predict_batch(predictor, rgb(), "depth", sampling, **SETTINGS).shape == (3, 16, 16)
    card, before = predictor.card.model_dump(mode="json"), None
    for share in (0.1, 1 / 3, 0.9):
        rest = (1 - share) / 2
        known = {"class_ids": [3, 7, 57], "class_shares": [rest, share, rest]}
        predictor.register_to_config(card=card | {"encoding": known})
        found = predict_batch(predictor, rgb(), "segmentation", sampling, **SETTINGS) == 7
        if before is not None:  # more frequent, hence likelier
            assert (found | ~before).all()
            assert found.sum() > before.sum()
        before = found
    predictor.register_to_config(card=card)


@torch.no_grad()
def test_ceiling_is_the_vaes_round_trip(tiny_folder):
    vae = load_vae(BaseConfig(model=str(tiny_folder)))
    albedo = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    ceiling = vae_ceiling(vae, albedo, "albedo", **SETTINGS)
    pixels = torch.from_numpy(albedo).movedim(-1, 1) * 2 - 1
    expected = vae.decode(vae.encode(pixels).latent_dist.mode()).sample / 2 + 0.5
    np.testing.assert_allclose(np.moveaxis(ceiling, -1, 1), expected.clamp(0, 1), atol=1e-5)


def test_classes_come_from_the_card_and_those_of_the_ceiling_from_the_label(predictor, tiny_folder):
    sampling = SamplingConfig(num_steps=1)
    free = predict_batch(predictor, rgb(), "segmentation", sampling, **SETTINGS)
    assert len(np.unique(free)) > 3
    card = predictor.card.model_dump(mode="json")
    predictor.register_to_config(card=card | {"encoding": {"class_ids": [3, 7, 57]}})
    held = predict_batch(predictor, rgb(), "segmentation", sampling, **SETTINGS)
    predictor.register_to_config(card=card)
    assert set(np.unique(held)) <= {3, 7, 57}
    assert (held[np.isin(free, [3, 7, 57])] == free[np.isin(free, [3, 7, 57])]).all()
    labels = np.random.default_rng(0).integers(0, 3, (3, 16, 16), dtype=np.uint8)
    labels[1] += 20
    labels[1, :2] = labels[2] = 255
    vae = load_vae(BaseConfig(model=str(tiny_folder)))
    first, second, unlabelled = vae_ceiling(vae, labels, "segmentation", **SETTINGS)
    assert set(np.unique(first)) <= {0, 1, 2}
    assert set(np.unique(second)) <= {20, 21, 22}
    assert unlabelled.shape == (16, 16)


# ------------------------------------------------------------------------------------- loading
def test_models_that_cannot_be_loaded_are_named(tiny_folder, tmp_path):
    with pytest.raises(InputError, match=r"base.model: 'nobody/nothing' could not be loaded.*give a local folder"):
        load_base(BaseConfig(model="nobody/nothing"))
    with pytest.raises(InputError, match="shipped:none: no such model ships"):
        load_base(BaseConfig(model="shipped:none"))
    with pytest.raises(InputError, match="no such folder"):
        load_vae(BaseConfig(model="./missing"))
    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder, broken)
    shutil.rmtree(broken / "unet")
    with pytest.raises(InputError, match=rf"base.model: {broken}: not a complete diffusers model"):
        load_base(BaseConfig(model=str(broken)))
    shutil.rmtree(broken / "vae")
    with pytest.raises(InputError, match="not a complete diffusers model"):
        load_vae(BaseConfig(model=str(broken)))


def test_half_precision_files_load(tiny_folder, tmp_path):
    folder = tmp_path / "half"
    load_base(BaseConfig(model=str(tiny_folder)), dtype=torch.float16).save_pretrained(folder, variant="fp16")
    base = load_base(BaseConfig(model=str(folder)))
    assert base.unet.dtype == torch.float32
    assert load_vae(BaseConfig(model=str(folder))).dtype == torch.float32
