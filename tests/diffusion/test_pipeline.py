"""DMPPipeline: inputs, sources of its defaults, outputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from dmp_core.diffusion import (
    DMPPipeline,
    Schedule,
    add_lora,
    base_digests,
    downscale_factor,
    encode_images,
    fingerprint,
    lora_parameters,
    save_adapter,
)
from dmp_core.diffusion.pipeline import postprocess, resize, to_pixels
from dmp_core.errors import InputError, NotFinite
from tests.golden.fill import fill_value
from tests.golden.tiny_sd import build_parts


@pytest.fixture
def fresh(base_folder: Path) -> DMPPipeline:
    loaded = DMPPipeline.from_pretrained(base_folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture
def adapter(unet: Any, tmp_path: Path) -> Path:
    meta = {
        "task": "depth",
        "prediction": "y",
        "schedule": {"spacing": "trailing", "set_alpha_to_one": True},
        "source": "estimated",
        "num_steps": 2,
        "encoding": {"mode": "F", "scale": 8.0},
        "resolution": 32,
    }
    return save_adapter(add_lora(unet, rank=1), tmp_path / "adapter", meta)


# ----------------------------------------------------------------------------- inputs
def test_images_of_every_kind_mean_the_same() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    pil_image = Image.fromarray(codes)
    tensor = torch.from_numpy(codes).permute(2, 0, 1).float() / 255
    for images in (pil_image, [pil_image], tensor, tensor[None]):
        assert torch.equal(to_pixels(images), tensor[None])
    assert to_pixels([pil_image, pil_image.convert("L")]).shape == (2, 3, 16, 24)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "give a PIL image"),
        (["room.png"], "give a PIL image"),
        ([Image.new("RGB", (8, 8)), Image.new("RGB", (9, 8))], r"sizes differ \(8×8, 9×8\); make one call for each"),
        (torch.zeros(1, 1, 8, 8), r"tensor of shape \(1, 1, 8, 8\); expected \(B, 3, H, W\)"),
        (torch.full((1, 3, 8, 8), -1.0), r"torch.float32 from -1 to -1; expected floats in \[0, 1\]"),
        (torch.full((1, 3, 8, 8), float("nan")), "expected floats"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "torch.uint8 .* expected floats"),
    ],
)
def test_invalid_images_are_refused(images: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_pixels(images)


def test_wrong_choices_are_named(pipeline: DMPPipeline, images: Tensor) -> None:
    with pytest.raises(InputError, match="mode: 'L'; choose one of RGB, F"):
        pipeline(images, mode="L")
    with pytest.raises(InputError, match="output_type: 'latents'; choose"):
        pipeline(images, output_type="latents")
    with pytest.raises(InputError, match="resampling: 'nearest'; choose"):
        pipeline(images, resampling="nearest")
    with pytest.raises(InputError, match="resolution: 4; give pixels"):
        pipeline(images, resolution=4)
    with pytest.raises(InputError, match="prompt: 3 prompts for 2 images"):
        pipeline(images, ["a", "b", "c"], resolution="input")


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a diffusers model, model_index\.json is missing"):
        DMPPipeline.from_pretrained(tmp_path)


# ---------------------------------------------------------------------------- outputs
def test_output_types(pipeline: DMPPipeline, images: Tensor) -> None:
    run = {"num_inference_steps": 1, "resolution": "input"}
    out = pipeline(images, **run)
    assert out.images.shape == (2, 3, 32, 48)
    assert out.latents.shape == (2, 4, 4, 6)
    assert 0 <= out.images.min() <= out.images.max() <= 1
    arrays = pipeline(images, output_type="np", **run).images
    np.testing.assert_array_equal(arrays, out.images.permute(0, 2, 3, 1))
    pil_images = pipeline(images, output_type="pil", **run).images
    np.testing.assert_array_equal(
        np.stack([np.asarray(p) for p in pil_images]), (arrays * 255).round().astype(np.uint8)
    )
    latents, again = pipeline(images, output_type="latent", return_dict=False, **run)
    assert latents is again
    assert torch.equal(latents, out.latents)


def test_depth_outputs(pipeline: DMPPipeline, images: Tensor) -> None:
    run = {"num_inference_steps": 1, "resolution": "input", "mode": "F"}
    metres = pipeline(images, scale=8.0, **run).images
    assert metres.shape == (2, 1, 32, 48)
    torch.testing.assert_close(metres, 8 * pipeline(images, **run).images)
    stretched = pipeline(images, scale="minmax", **run).images
    assert torch.equal(stretched.amin((1, 2, 3)), torch.zeros(2))
    assert torch.equal(stretched.amax((1, 2, 3)), torch.ones(2))
    (first, _) = pipeline(images, scale=8.0, output_type="pil", **run).images
    assert first.mode == "F"
    np.testing.assert_array_equal(np.asarray(first), metres[0, 0])


def test_results_are_deterministic_unless_a_generator_is_given(pipeline: DMPPipeline, images: Tensor) -> None:
    def run(seed: int | None = None) -> Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return pipeline(images, num_inference_steps=1, resolution="input", generator=generator).latents

    assert torch.equal(run(), run())
    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_prompt_and_guidance_change_the_result(pipeline: DMPPipeline, images: Tensor) -> None:
    def run(*args: Any, **options: Any) -> Tensor:
        return pipeline(images, *args, num_inference_steps=1, resolution="input", **options).latents

    plain = run()
    assert torch.equal(run(""), plain)
    assert torch.equal(run(None, guidance_scale=3.0), plain)
    prompted = run("a bed")
    assert not torch.allclose(prompted, plain, atol=1e-3)
    assert torch.equal(run(["a bed", "a bed"]), prompted)
    assert not torch.allclose(run("a bed", guidance_scale=3.0), prompted, atol=1e-3)


def test_working_size(pipeline: DMPPipeline) -> None:
    size = pipeline._working_size
    assert pipeline.native_resolution == 128
    assert size((64, 96), "native") == (128, 192)
    assert size((300, 200), 512) == (768, 512)
    assert size((33, 47), "input") == (32, 48)
    assert size((33, 47), (64, 40)) == (64, 40)
    assert size((3, 3), "input") == (8, 8)


def test_results_come_back_in_the_images_size(pipeline: DMPPipeline) -> None:
    out = pipeline(torch.rand(1, 3, 21, 37), num_inference_steps=1, resolution=16)
    assert out.images.shape == (1, 3, 21, 37)
    assert out.latents.shape[-2:] == (2, 4)


# -------------------------------------------------------------------------- adapters, settings
def test_adapter_brings_its_settings(base_folder: Path, adapter: Path, images: Tensor) -> None:
    pipeline = DMPPipeline.from_pretrained(base_folder, adapter=adapter)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.card.task == "depth"
    assert pipeline.native_resolution == 32
    schedule = pipeline.schedule
    assert schedule.timesteps(2).tolist() == [999, 499]
    assert schedule.final_alpha == 1
    default = pipeline(images)
    explicit = pipeline(
        images,
        num_inference_steps=2,
        prediction="y",
        source="estimated",
        schedule=Schedule.stable_diffusion("trailing", set_alpha_to_one=True),
        resolution=32,
        mode="F",
        scale=8.0,
    )
    assert default.images.shape == (2, 1, 32, 48)
    assert torch.equal(default.images, explicit.images)


def test_without_adapter_the_papers_settings_hold(pipeline: DMPPipeline, images: Tensor) -> None:
    explicit = pipeline(
        images,
        num_inference_steps=5,
        prediction="v",
        source="oracle",
        schedule=Schedule.stable_diffusion(),
        resolution="input",
    )
    assert torch.equal(pipeline(images, resolution="input").images, explicit.images)


def test_settings_survive_saving_the_pipeline(fresh: DMPPipeline, adapter: Path, tmp_path: Path) -> None:
    fresh.load_adapter(adapter)
    with pytest.raises(InputError, match="carries an adapter"):
        fresh.save_pretrained(tmp_path / "saved")
    fresh.unet.unload_lora()
    fresh.save_pretrained(tmp_path / "saved")
    loaded = DMPPipeline.from_pretrained(tmp_path / "saved")
    assert isinstance(loaded, DiffusionPipeline)
    assert loaded.card == fresh.card


def test_half_precision(fresh: DMPPipeline, images: Tensor) -> None:
    fresh.to(torch.bfloat16)
    out = fresh(images, num_inference_steps=1, resolution="input")
    assert out.latents.dtype == torch.bfloat16
    assert out.images.dtype == torch.float32


def test_layers_that_are_stored_in_another_precision_compute_in_theirs(fresh: DMPPipeline, images: Tensor) -> None:
    """Weights of 8 bits, cast before each layer by a hook: then no weight says in which precision a layer computes."""
    expected = fresh(images, num_inference_steps=1).latents
    fresh.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert torch.float8_e4m3fn in {value.dtype for value in fresh.unet.parameters()}
    found = fresh(images, num_inference_steps=1).latents
    assert found.dtype == torch.float32
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.95


# --------------------------------------------------------------------------------- other VAEs
def test_a_vae_of_another_factor_and_width() -> None:
    parts = build_parts()
    unet_config = dict(parts["unet"].config) | {"in_channels": 6, "out_channels": 6, "sample_size": 8}
    parts["unet"] = type(parts["unet"]).from_config(unet_config)
    parts["vae"] = AutoencoderKL(
        block_out_channels=(4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=6,
        norm_num_groups=2,
        scaling_factor=0.7,
        shift_factor=0.1,
    )
    pipeline = DMPPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    assert downscale_factor(pipeline.vae) == 4
    assert pipeline.native_resolution == 32
    out = pipeline(torch.rand(1, 3, 16, 20), num_inference_steps=1, resolution="input")
    assert out.latents.shape == (1, 6, 4, 5)
    assert out.images.shape == (1, 3, 16, 20)


@torch.no_grad()
def test_a_vae_without_posterior() -> None:
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    assert downscale_factor(vae) == 2
    assert encode_images(vae, torch.rand(1, 3, 8, 8)).shape == (1, 4, 4, 4)


# ----------------------------------------------------------------------------- postprocessing
def test_resampling_clamps_except_as_published() -> None:
    decoded = torch.zeros(1, 3, 16, 16)
    decoded[..., ::4] = 1.0
    ours = postprocess(decoded, (64, 64), "F", 8.0, "antialias", "pt")
    published = postprocess(decoded, (64, 64), "F", 8.0, "dmp_compat", "pt")
    assert 0 <= ours.min() <= ours.max() <= 8
    assert published.min() < 0
    torch.testing.assert_close(published.clamp(0, 8), ours)
    assert torch.equal(resize(decoded, (16, 16)), decoded)


# ------------------------------------------------------------------- invalid numbers
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("num_inference_steps", [0, -1, True, 2.0, "3"]),
        ("guidance_scale", [-1.0, True, float("nan"), float("inf"), "a"]),
        ("resolution", [0, -64, True, 64.0, 10**6, (64, 0), (64,), "huge"]),
        ("scale", [0, -8.0, float("nan"), True, "max"]),
    ],
)
def test_invalid_numbers_are_refused(pipeline: DMPPipeline, images: Tensor, name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(InputError, match=f"{name}: "):
            pipeline(images, **{name: value})


def test_images_too_narrow_to_be_enlarged(pipeline: DMPPipeline) -> None:
    with pytest.raises(InputError, match="6000 × 1 pixels: more than 32 times as long as wide"):
        pipeline(Image.new("RGB", (6000, 1)))
    assert pipeline._working_size((1, 6000), "input") == (8, 6000)


# --------------------------------------------------------------------- images of other kinds
def test_images_of_16_bits_keep_their_levels() -> None:
    codes = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    expected = torch.from_numpy(codes / 65535).expand(1, 3, -1, -1)
    torch.testing.assert_close(to_pixels(Image.fromarray(codes)).double(), expected, rtol=0, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white(mode: str) -> None:
    assert (to_pixels(Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)) == 1).all()


def test_floating_point_images_are_refused_by_index() -> None:
    float_image = Image.fromarray(np.zeros((4, 4), np.float32))
    with pytest.raises(InputError, match=r"images\[1\]: .*floating-point pixels"):
        to_pixels([Image.new("RGB", (4, 4)), float_image])


def test_images_are_rotated_by_their_exif_data() -> None:
    pil_image = Image.new("RGB", (4, 2))
    pil_image.getexif()[0x0112] = 6
    assert to_pixels(pil_image).shape == (1, 3, 4, 2)


# ------------------------------------------------------------------------- the mode and the base
def noisy(unet: Any) -> Any:
    with torch.no_grad():
        for name, parameter in lora_parameters(unet):
            parameter.copy_(fill_value(name, tuple(parameter.shape)))
    return unet


@pytest.fixture
def trained(base_folder: Path, tmp_path: Path) -> Path:
    """An adapter that changes the output, whose card states U-Net and VAE."""
    parts = build_parts()
    card = {"vae_fingerprint": fingerprint(parts["vae"]), **base_digests(parts["unet"], parts["vae"])}
    return save_adapter(noisy(add_lora(parts["unet"], rank=2, targets="attention")), tmp_path / "trained", card)


def test_dropout_of_an_adapter_is_never_active(base_folder: Path, trained: Path) -> None:
    pipeline = DMPPipeline.from_pretrained(base_folder, adapter=trained)
    expected = pipeline(torch.ones(1, 3, 16, 16) / 2, num_inference_steps=2, resolution="input").images
    file = trained / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_dropout": 0.5}))
    dropping = DMPPipeline.from_pretrained(base_folder, adapter=trained)
    for training in (False, True):
        dropping.unet.train(training)
        found = dropping(torch.ones(1, 3, 16, 16) / 2, num_inference_steps=2, resolution="input").images
        assert torch.equal(found, expected)
        assert dropping.unet.training == training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, {"unet": torch.bfloat16, "default": torch.float32}])
def test_the_base_is_known_in_any_precision(base_folder: Path, trained: Path, dtype: Any) -> None:
    pipeline = DMPPipeline.from_pretrained(base_folder, adapter=trained, dtype=dtype)
    assert pipeline.unet.dtype == (dtype if isinstance(dtype, torch.dtype) else torch.bfloat16)
    assert pipeline.vae.dtype == (dtype if isinstance(dtype, torch.dtype) else torch.float32)


def test_the_base_is_known_after_a_later_cast(base_folder: Path, trained: Path) -> None:
    pipeline = DMPPipeline.from_pretrained(base_folder)
    pipeline.to(torch.bfloat16)
    assert pipeline.load_adapter(trained).base_digest


@pytest.mark.parametrize(("part", "named"), [("unet", "base model"), ("vae", "VAE")])
@pytest.mark.parametrize("place", ["head", "tail"])
def test_another_base_is_refused_wherever_it_differs(
    base_folder: Path, trained: Path, tmp_path: Path, part: str, named: str, place: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(base_folder, other)
    file = next((other / part).glob("*.safetensors"))
    weights = load_file(file)
    largest = max(weights, key=lambda name: weights[name].numel())
    weights[largest].view(-1)[0 if place == "head" else -1] += 0.5
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"trained on another {named} .*check_base=False"):
        DMPPipeline.from_pretrained(other, adapter=trained)
    DMPPipeline.from_pretrained(other, adapter=trained, check_base=False)


def test_cards_without_digests_are_valid(base_folder: Path, trained: Path) -> None:
    file = trained / "dmp.json"
    card = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in card.items() if not name.endswith("_digest")}))
    DMPPipeline.from_pretrained(base_folder, adapter=trained)


# ---------------------------------------------------------------------------------- not finite
def test_base_weights_that_are_not_finite_are_refused_by_file_and_tensor(base_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base_folder, broken)
    file = next((broken / "vae").glob("*.safetensors"))
    weights = load_file(file)
    name = sorted(weights)[-1]
    weights[name].view(-1)[-1] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"{file.name}: tensor {name} holds NaN"):
        DMPPipeline.from_pretrained(broken)


@pytest.mark.parametrize("output_type", ["pt", "np", "pil", "latent"])
def test_outputs_that_are_not_finite_are_refused(fresh: DMPPipeline, images: Tensor, output_type: Any) -> None:
    with torch.no_grad():
        fresh.unet.conv_out.bias.fill_(float("inf"))
    with pytest.raises(NotFinite, match="sample 0 of the batch: the model's output holds NaN or infinity"):
        fresh(images, num_inference_steps=1, resolution="input", output_type=output_type)


# ----------------------------------------------------------------------------- cost
@pytest.mark.parametrize(("scale", "texts", "rows"), [(1.0, [1], 3), (2.0, [1, 1], 6)])
def test_guidance_costs_nothing_where_it_is_one(fresh, scale, texts, rows):
    """Texts embedded, and rows that the U-Net computes per step, for three images."""
    embedded: list[int] = []
    computed: list[int] = []
    fresh.text_encoder.register_forward_pre_hook(lambda module, given: embedded.append(len(given[0])))
    fresh.unet.register_forward_pre_hook(lambda module, given: computed.append(len(given[0])))
    fresh(torch.rand(3, 3, 16, 16), "a bed", num_inference_steps=2, guidance_scale=scale, resolution="input")
    assert (embedded, computed) == (texts, [rows, rows])
