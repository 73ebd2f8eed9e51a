"""The published DMP code's numbers: schedule, process, training step, sampling, VAE, whole calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from dmp_core.diffusion import (
    DMPPipeline,
    Schedule,
    add_lora,
    decode_latents,
    depth_from_decoded,
    encode_images,
    interpolate,
    load_adapter,
    lora_parameters,
    remove_adapter,
    sample,
    training_target,
    unet_denoiser,
)
from dmp_core.diffusion.pipeline import postprocess
from dmp_core.diffusion.process import estimate_y
from tests.golden.fill import fill_value, normal, uniform
from tests.golden.tiny_sd import build_parts, write_base, write_published_lora
from tests.golden.vectors import FOLDER, Golden

PREDICTIONS = {"epsilon": "x", "sample": "y", "v_prediction": "v"}
SOURCES = {"plain": "estimated", "oracle": "oracle"}
SCHEDULE = Schedule.stable_diffusion()


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("dmp_core")


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return build_parts()


@pytest.fixture(scope="module")
def base_unet(parts: dict[str, Any]) -> Any:
    return parts["unet"]


@pytest.fixture(scope="module")
def lora_file(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published_lora(tmp_path_factory.mktemp("lora") / "filled.safetensors", golden.facts["lora_keys"])


@pytest.fixture(scope="module")
def lora_unet(lora_file: Path) -> Any:
    unet = build_parts()["unet"]
    load_adapter(unet, lora_file)
    return unet


@pytest.fixture(scope="module")
def embeds(golden: Golden) -> dict[str, Tensor]:
    return {"prompt": golden["text.embeds"], "noprompt": golden["text.embeds_empty"]}


def published_name(parameter: str) -> str:
    """The published key of one of our LoRA parameters."""
    module, matrix = parameter.replace(".default", "").removesuffix(".weight").rsplit(".", 1)
    attention, projection = module.removesuffix(".0").rsplit(".", 1)
    return f"{attention}.processor.{projection}_lora.{'down' if matrix == 'lora_A' else 'up'}.weight"


# ------------------------------------------------------------------------ inputs and schedule
def test_inputs_come_from_their_seeds(golden: Golden) -> None:
    golden.check("in.x", normal(101, (2, 4, 16, 16)))
    golden.check("in.y", normal(102, (2, 4, 16, 16)))


def test_alphas_cumprod(golden: Golden, parts: dict[str, Any]) -> None:
    np.testing.assert_allclose(SCHEDULE.alphas_cumprod, golden.array("sched.alphas_cumprod"), rtol=0, atol=1e-7)
    read = Schedule.from_config(parts["scheduler"].config)
    assert torch.equal(read.alphas_cumprod, SCHEDULE.alphas_cumprod)
    assert (read.spacing, read.steps_offset, read.set_alpha_to_one) == ("leading", 1, False)


def test_leading_timesteps(golden: Golden) -> None:
    expected = golden.facts["timesteps_leading"]
    assert sorted(map(int, expected)) == list(range(1, 51))
    for count, timesteps in expected.items():
        assert SCHEDULE.timesteps(int(count)).tolist() == timesteps


def test_final_alpha(golden: Golden) -> None:
    for description in golden.facts["infer_scheduler"].values():
        assert f"final_alpha_cumprod={float(SCHEDULE.final_alpha)}" in description


def test_process(golden: Golden) -> None:
    y, x = (golden[name][:1].expand(5, -1, -1, -1) for name in ("in.y", "in.x"))
    golden.check("noise.y_t", interpolate(SCHEDULE, y, x, golden["noise.t"]))
    golden.check("noise.v", training_target(SCHEDULE, y, x, golden["noise.t"]))


# --------------------------------------------------------------------------------------- text
@torch.no_grad()
def test_text(golden: Golden, parts: dict[str, Any]) -> None:
    pipeline = DMPPipeline(**parts)
    prompts = ["a bed in the bedroom by a window", "the lamp"]
    for name, texts in (("in.ids", prompts), ("in.ids_empty", ["", ""])):
        ids = parts["tokenizer"](texts, padding="max_length", truncation=True, max_length=77).input_ids
        golden.check_exact(name, ids)
    golden.check("text.embeds", pipeline.encode_prompt(prompts))
    golden.check("text.embeds_empty", pipeline.encode_prompt(""))


# --------------------------------------------------------------------------------------- LoRA
def run_unet(unet: Any, golden: Golden) -> Tensor:
    with torch.no_grad():
        return unet_denoiser(unet, golden["text.embeds"])(golden["in.x"], golden["in.t_train"])


def test_adapters(golden: Golden, base_unet: Any, lora_unet: Any, tmp_path: Path) -> None:
    golden.check("unet.base", run_unet(base_unet, golden))
    golden.check("unet.lora_all", run_unet(lora_unet, golden))
    keys = golden.facts["lora_keys_self_attn_only"]
    file = write_published_lora(tmp_path / "self.safetensors", {key: golden.facts["lora_keys"][key] for key in keys})
    unet = build_parts()["unet"]
    load_adapter(unet, file)
    golden.check("unet.lora_self", run_unet(unet, golden))


def test_published_file(golden: Golden, lora_unet: Any) -> None:
    saved = load_file(FOLDER / "tiny_lora" / "pytorch_lora_weights.safetensors")
    assert {key: list(tensor.shape) for key, tensor in saved.items()} == golden.facts["saved_lora_keys"]
    assert golden.facts["saved_lora_file"] == ["pytorch_lora_weights.safetensors"]
    unet = build_parts()["unet"]
    load_adapter(unet, FOLDER / "tiny_lora")
    loaded = dict(lora_parameters(unet))
    for name, parameter in lora_parameters(lora_unet):
        assert torch.equal(loaded[name], parameter)
        assert torch.equal(saved[published_name(name)], parameter)


@pytest.mark.parametrize(
    ("targets", "fact"), [("attention", "lora_keys"), ("self_attention", "lora_keys_self_attn_only")]
)
def test_added_lora_is_the_published_one(golden: Golden, targets: str, fact: str) -> None:
    unet = add_lora(build_parts()["unet"], rank=4, targets=targets, seed=0)
    matrices = {published_name(name): parameter for name, parameter in lora_parameters(unet)}
    assert matrices.keys() == set(golden.facts[fact])
    for key, matrix in matrices.items():
        assert list(matrix.shape) == golden.facts["lora_keys"][key]
    up = [matrix for key, matrix in matrices.items() if ".up." in key]
    down = torch.cat([matrix.flatten() for key, matrix in matrices.items() if ".down." in key])
    assert golden.facts["lora_default_init_up_is_zero"]
    assert all(matrix.eq(0).all() for matrix in up)
    assert down.std().item() == pytest.approx(golden.facts["lora_default_init_down_std(one tensor)"], rel=0.05)
    golden.check("unet.base", run_unet(unet, golden))


# ----------------------------------------------------------------------------------- training
@pytest.mark.parametrize("text", ["prompt", "noprompt"])
@pytest.mark.parametrize("name", PREDICTIONS)
def test_training_step(golden: Golden, lora_unet: Any, embeds: dict[str, Tensor], name: str, text: str) -> None:
    key = f"train.{name}.{text}"
    y, x, t = golden["in.y"], golden["in.x"], golden["in.t_train"]
    noisy = interpolate(SCHEDULE, y, x, t)
    target = training_target(SCHEDULE, y, x, t, PREDICTIONS[name])
    pred = unet_denoiser(lora_unet, embeds[text])(noisy, t)
    loss = torch.nn.functional.mse_loss(pred, target)
    golden.check(f"{key}.noisy", noisy)
    golden.check(f"{key}.target", target)
    golden.check(f"{key}.pred", pred.detach())
    golden.check(f"{key}.loss", loss.detach())
    gradients = lora_gradients(lora_unet, loss)
    assert sorted(gradients) == sorted(golden.facts["lora_keys"])
    golden.check(f"{key}.grad_norms", np.array([gradients[k].double().norm().item() for k in sorted(gradients)]))
    stored = [array for array in golden.names if array.startswith(f"{key}.grad.")]
    assert len(stored) == 2
    for array in stored:
        golden.check(array, gradients[array.removeprefix(f"{key}.grad.")])


def lora_gradients(unet: Any, loss: Tensor) -> dict[str, Tensor]:
    """By published name; nothing but LoRA may receive a gradient."""
    unet.zero_grad(set_to_none=True)
    loss.backward()
    with_gradient = {name for name, parameter in unet.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name, _ in lora_parameters(unet)}
    gradients = {published_name(name): parameter.grad for name, parameter in lora_parameters(unet)}
    unet.zero_grad(set_to_none=True)
    return gradients


@torch.no_grad()
def test_training_step_from_images(golden: Golden, parts: dict[str, Any], lora_unet: Any) -> None:
    x, y = (encode_images(parts["vae"], uniform(seed, (2, 3, 128, 128), -1, 1) / 2 + 0.5) for seed in (201, 202))
    t = golden["in.t_train"]
    pred = unet_denoiser(lora_unet, golden["text.embeds"])(interpolate(SCHEDULE, y, x, t), t)
    loss = torch.nn.functional.mse_loss(pred, training_target(SCHEDULE, y, x, t))
    golden.check("train.v_prediction.prompt.realvae_mode.loss", loss)


# ----------------------------------------------------------------------------------- sampling
@pytest.mark.parametrize("text", ["noprompt", "guid2"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", PREDICTIONS)
@torch.no_grad()
def test_trajectory(
    golden: Golden, lora_unet: Any, embeds: dict[str, Tensor], name: str, source: str, text: str
) -> None:
    key = f"infer.{name}.{source}.{text}"
    denoise = (
        unet_denoiser(lora_unet, embeds["noprompt"])
        if text == "noprompt"
        else unet_denoiser(lora_unet, embeds["prompt"], embeds["noprompt"], guidance_scale=2.0)
    )
    visited: list[tuple[Tensor, Tensor, Tensor]] = []

    def recording(y_t: Tensor, t: Tensor) -> Tensor:
        assert t.dtype == torch.int64
        visited.append((y_t, t, denoise(y_t, t)))
        return visited[-1][2]

    y, latents = sample(recording, golden["in.x"], SCHEDULE, 5, PREDICTIONS[name], SOURCES[source], trajectory=True)
    assert torch.equal(y, latents[-1])
    golden.check_exact(f"{key}.t", torch.stack([t[0] for _, t, _ in visited]))
    golden.check(f"{key}.mid", latents)
    golden.check(f"{key}.model_out", torch.stack([out for _, _, out in visited]))
    alphas = SCHEDULE.alphas_cumprod
    estimates = [estimate_y(y_t, out, alphas[t[0]], PREDICTIONS[name]) for y_t, t, out in visited]
    golden.check(f"{key}.pred_y", torch.stack(estimates))


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("source", SOURCES)
@torch.no_grad()
def test_step_counts(golden: Golden, lora_unet: Any, source: str, steps: int) -> None:
    denoise = unet_denoiser(lora_unet, golden["text.embeds_empty"])
    y = sample(denoise, golden["in.x"], SCHEDULE, steps, "v", SOURCES[source])
    golden.check(f"infer.v_prediction.{source}.noprompt.steps{steps}.final", y)


@pytest.mark.parametrize("text", ["noprompt", "prompt"])
@torch.no_grad()
def test_one_pass(golden: Golden, lora_unet: Any, embeds: dict[str, Tensor], text: str) -> None:
    schedule = Schedule.stable_diffusion(set_alpha_to_one=True)
    y = sample(unet_denoiser(lora_unet, embeds[text]), golden["in.x"], schedule, 1, "y")
    golden.check(f"onepass.{text}", y)


@torch.no_grad()
def test_generate_then_predict(golden: Golden, base_unet: Any, lora_unet: Any, embeds: dict[str, Tensor]) -> None:
    """Noise to image latents by diffusers' own DDIM on the base model, then those to the label."""
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.set_timesteps(4)
    latents = golden["gen.init"]
    generate = unet_denoiser(base_unet, embeds["prompt"], embeds["noprompt"], guidance_scale=7.5)
    for t in scheduler.timesteps:
        latents = scheduler.step(generate(latents, t.expand(2)), t, latents).prev_sample
    golden.check("gen.src", latents)
    predict = unet_denoiser(lora_unet, embeds["prompt"], embeds["noprompt"], guidance_scale=2.0)
    golden.check("gen.trg", sample(predict, latents, SCHEDULE, 5, "v", "estimated"))


# ---------------------------------------------------------------------------------------- VAE
@torch.no_grad()
def test_vae(golden: Golden, parts: dict[str, Any]) -> None:
    vae = parts["vae"]
    images = uniform(201, (2, 3, 128, 128), -1, 1)
    golden.check("vae.in_seed201_mean", encode_images(vae, images / 2 + 0.5) / vae.config.scaling_factor)
    golden.check("vae.in_seed201_logvar", vae.encode(images).latent_dist.logvar)
    golden.check("vae.decode_x", decode_latents(vae, golden["in.x"][:1]) * 2 - 1)


@torch.no_grad()
def test_decoding_to_colours_and_depth(golden: Golden, parts: dict[str, Any]) -> None:
    decoded = decode_latents(parts["vae"], golden["in.x"][:1])
    (pil_image,) = postprocess(decoded, (128, 128), "RGB", 1.0, "dmp_compat", "pil")
    golden.check_levels("decode_latents.RGB", np.asarray(pil_image)[None])
    depth = depth_from_decoded(decoded, 8.0)
    golden.check("decode_latents.F.scale8.array", depth[0, 0])
    preview = (depth / 8 * 65535).round().clamp(0, 65535).int()  # 16-bit grey levels
    golden.check_levels("decode_latents.F.scale8.preview", preview[0, 0].numpy())
    golden.check("decode_latents.F.scale-1.array", depth_from_decoded(decoded, "minmax")[0, 0])
    golden.check("decode_latents.F.default.array", depth_from_decoded(decoded)[0, 0])


# --------------------------------------------------------------------------------- whole calls
@pytest.fixture(scope="module")
def pipeline(lora_file: Path, tmp_path_factory: pytest.TempPathFactory) -> DMPPipeline:
    loaded = DMPPipeline.from_pretrained(write_base(tmp_path_factory.mktemp("tiny_sd")), adapter=lora_file)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def pil_image(golden: Golden) -> Image.Image:
    return Image.fromarray(golden.array("call.in"))


def test_call_at_the_input_size(golden: Golden, pipeline: DMPPipeline, pil_image: Image.Image) -> None:
    options = {"source": "estimated", "resolution": "input", "output_type": "pil", "num_inference_steps": 5}
    colours = pipeline(pil_image, **options).images[0]
    depth = pipeline(pil_image, mode="F", **options).images[0]
    assert (colours.mode, depth.mode) == ("RGB", "F")
    golden.check_levels("call.RGB.noresize.steps5", np.asarray(colours))
    golden.check("call.F.noresize.steps5", np.asarray(depth))


@pytest.mark.parametrize(
    ("resampling", "suffix"), [pytest.param("dmp_compat_aliased", "aa0", marks=pytest.mark.e2e), ("dmp_compat", "aa1")]
)
def test_call_at_512(
    golden: Golden, pipeline: DMPPipeline, pil_image: Image.Image, resampling: str, suffix: str
) -> None:
    out = pipeline(
        pil_image,
        num_inference_steps=2,
        source="estimated",
        resolution=512,
        resampling=resampling,
        output_type="pil",
    )
    golden.check_levels(f"call.RGB.resize512.steps2.{suffix}", np.asarray(out.images[0]))
    # The same latents read as depth: a second pass through the network would only cost time.
    with torch.no_grad():
        decoded = decode_latents(pipeline.vae, out.latents)
    depth = postprocess(decoded, (128, 160), "F", 1.0, resampling, "np")
    golden.check(f"call.F.resize512.steps2.{suffix}", depth[0])


def test_removed_adapter_leaves_the_base(golden: Golden, lora_file: Path) -> None:
    unet = build_parts()["unet"]
    load_adapter(unet, lora_file)
    golden.check("unet.base", run_unet(remove_adapter(unet), golden))


def test_fill_recipe() -> None:
    """The self-check values of the recipe: without it the other numbers have no meaning."""
    np.testing.assert_allclose(fill_value("check.weight", (2, 3))[0], [0.33662605, 1.08867002, 0.38207316], atol=1e-7)
    np.testing.assert_allclose(fill_value("norm.weight", (3,)), [0.92157012, 1.02820098, 0.97795510], atol=1e-7)
    np.testing.assert_allclose(fill_value("bn.running_var", (3,)), [1.12512696, 1.16148651, 1.01080871], atol=1e-7)
    np.testing.assert_allclose(uniform(1, (3,)), [0.51182163, 0.95046371, 0.14415962], atol=1e-7)
