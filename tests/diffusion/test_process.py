"""Equations 2 to 4 as properties: what must hold for any latents, schedule and step count."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dmp_core.diffusion import Schedule, interpolate, sample, training_target, unet_denoiser
from dmp_core.diffusion.process import PREDICTIONS, blend, estimate_x, estimate_y
from dmp_core.diffusion.schedule import SPACINGS
from dmp_core.errors import InputError

predictions = st.sampled_from(PREDICTIONS)
spacings = st.sampled_from(SPACINGS)
seeds = st.integers(0, 2**31)
SCHEDULE = Schedule.stable_diffusion()


def latents(seed: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """(y, x) in double precision, so that equalities are those of the mathematics."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.randn(2, batch, 4, 3, 5, generator=generator, dtype=torch.float64)
    return y, x


def knowing(y: Tensor, schedule: Schedule, prediction: str):
    """The perfect denoiser: for any y_t its output implies exactly y."""

    def denoise(y_t: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (len(y),)
        assert t.dtype == torch.int64
        alpha = schedule.alphas_cumprod[t].double().view(-1, 1, 1, 1)
        if prediction == "y":
            return y
        if prediction == "x":
            return (y_t - alpha.sqrt() * y) / (1 - alpha).sqrt()
        return (alpha.sqrt() * y_t - y) / (1 - alpha).sqrt()

    return denoise


# ------------------------------------------------------------------------------------ process
@given(seeds, st.integers(0, 999), st.integers(0, 999), predictions)
def test_x_y_v_imply_each_other(seed: int, first: int, second: int, prediction: str) -> None:
    y, x = latents(seed)
    t = torch.tensor([first, second])
    y_t = interpolate(SCHEDULE, y, x, t)
    output = training_target(SCHEDULE, y, x, t, prediction)
    alpha = SCHEDULE.alphas_cumprod[t].view(-1, 1, 1, 1)
    # Roots are taken in single precision; predicting x or y divides by roots down to 0.07 and 0.03.
    torch.testing.assert_close(estimate_y(y_t, output, alpha, prediction), y, rtol=0, atol=5e-6)
    torch.testing.assert_close(estimate_x(y_t, output, alpha, prediction), x, rtol=0, atol=5e-6)


@given(seeds, st.integers(0, 999))
def test_process_is_a_rotation(seed: int, timestep: int) -> None:
    y, x = latents(seed)
    t = torch.full((2,), timestep)
    y_t, v = interpolate(SCHEDULE, y, x, t), training_target(SCHEDULE, y, x, t)
    torch.testing.assert_close(y_t**2 + v**2, y**2 + x**2, rtol=1e-5, atol=1e-5)


def test_targets_x_and_y_are_the_latents_themselves() -> None:
    y, x = latents(0)
    t = torch.tensor([3, 500])
    assert training_target(SCHEDULE, y, x, t, "x") is x
    assert training_target(SCHEDULE, y, x, t, "y") is y


def test_y_of_the_last_timestep_is_x_only_at_zero_terminal_snr() -> None:
    y, x = latents(0)
    t = torch.tensor([999, 999])
    assert torch.equal(interpolate(Schedule.stable_diffusion(zero_terminal_snr=True), y, x, t), x)
    assert not torch.allclose(interpolate(SCHEDULE, y, x, t), x, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    y, x = (tensor.to(dtype) for tensor in latents(0))
    t = torch.tensor([0, 999])
    assert interpolate(SCHEDULE, y, x, t).dtype == dtype
    assert training_target(SCHEDULE, y, x, t).dtype == dtype
    assert sample(lambda y_t, _: y_t, x, SCHEDULE, 2).dtype == dtype


# ------------------------------------------------------------------------------------ sampling
@given(seeds, spacings, st.integers(1, 60), predictions, st.sampled_from(["oracle", "estimated"]))
def test_perfect_denoiser_gives_y(seed: int, spacing: str, steps: int, prediction: str, source: str) -> None:
    y, x = latents(seed)
    schedule = Schedule.stable_diffusion(spacing, set_alpha_to_one=True)
    result = sample(knowing(y, schedule, prediction), x, schedule, steps, prediction, source)
    torch.testing.assert_close(result, y, rtol=0, atol=1e-5)


@given(seeds, spacings, st.integers(1, 60), st.sampled_from(["y", "v"]))
def test_without_alpha_one_a_known_share_of_x_remains(seed: int, spacing: str, steps: int, prediction: str) -> None:
    y, x = latents(seed)
    schedule = Schedule.stable_diffusion(spacing)
    result = sample(knowing(y, schedule, prediction), x, schedule, steps, prediction)
    torch.testing.assert_close(result, blend(y, x, schedule.alphas_cumprod[0]), rtol=0, atol=1e-5)
    assert (1 - schedule.alphas_cumprod[0]).sqrt().item() == pytest.approx(0.029, abs=1e-3)


@given(seeds, st.integers(1, 60), st.sampled_from(["y", "v"]))
def test_perfect_denoiser_at_zero_terminal_snr(seed: int, steps: int, prediction: str) -> None:
    y, x = latents(seed)
    schedule = Schedule.stable_diffusion("trailing", zero_terminal_snr=True, set_alpha_to_one=True)
    result = sample(knowing(y, schedule, prediction), x, schedule, steps, prediction)
    torch.testing.assert_close(result, y, rtol=0, atol=1e-5)


@given(seeds, spacings, st.integers(2, 40))
def test_oracle_follows_equation_2(seed: int, spacing: str, steps: int) -> None:
    """After each step of a perfect denoiser the latents are on the forward process."""
    y, x = latents(seed)
    schedule = Schedule.stable_diffusion(spacing)
    _, path = sample(knowing(y, schedule, "v"), x, schedule, steps, trajectory=True)
    assert path.shape == (steps, *x.shape)
    for point, t in zip(path, schedule.timesteps(steps)[1:], strict=False):
        torch.testing.assert_close(point, interpolate(schedule, y, x, t.expand(2)), rtol=0, atol=1e-5)


def test_sampling_follows_equation_4_literally() -> None:
    _, x = latents(1)
    a, b = SCHEDULE.alphas_cumprod[501].double(), SCHEDULE.alphas_cumprod[1].double()
    v = torch.randn_like(x)
    expected = b.sqrt() * (a.sqrt() * x - (1 - a).sqrt() * v) + (1 - b).sqrt() * x
    _, path = sample(lambda *_: v, x, SCHEDULE, 2, trajectory=True)
    torch.testing.assert_close(path[0], expected, rtol=0, atol=1e-6)


@given(seeds, st.integers(1, 20))
def test_predicting_x_is_its_own_source(seed: int, steps: int) -> None:
    _, x = latents(seed)
    results = [sample(lambda y_t, _: y_t.sin(), x, SCHEDULE, steps, "x", s) for s in ("oracle", "estimated")]
    assert torch.equal(*results)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [4, 5, 10])
def test_estimated_source_is_diffusers_ddim(prediction: str, steps: int) -> None:
    """Where diffusers' fixed stride is right: leading steps that divide 1000."""
    from diffusers import DDIMScheduler

    _, x = latents(2)
    names = {"x": "epsilon", "y": "sample", "v": "v_prediction"}
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    scheduler = DDIMScheduler(**config, prediction_type=names[prediction], set_alpha_to_one=False, clip_sample=False)
    scheduler.set_timesteps(steps)
    expected = x
    for t in scheduler.timesteps:
        expected = scheduler.step(expected.sin(), t, expected).prev_sample
    result = sample(lambda y_t, _: y_t.sin(), x, SCHEDULE, steps, prediction, "estimated")
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_samples_of_a_batch_are_independent() -> None:
    _, x = latents(3, batch=3)

    def denoise(y_t: Tensor, t: Tensor) -> Tensor:
        return y_t.cos() * t.view(-1, 1, 1, 1) / 1000

    together = sample(denoise, x, SCHEDULE)
    assert torch.equal(together[1:2], sample(denoise, x[1:2], SCHEDULE))


# ---------------------------------------------------------------------------------- denoiser
def fake_unet(y_t: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> SimpleNamespace:
    assert len(y_t) == len(t) == len(encoder_hidden_states)
    return SimpleNamespace(sample=y_t * encoder_hidden_states.mean((1, 2)).view(-1, 1, 1, 1))


def test_guidance_weighs_text_against_no_text() -> None:
    y_t = torch.ones(2, 4, 2, 2)
    text, empty = torch.full((1, 7, 5), 3.0), torch.full((1, 7, 5), 1.0)
    t = torch.tensor([1, 1])
    assert unet_denoiser(fake_unet, text)(y_t, t).unique().item() == 3
    assert unet_denoiser(fake_unet, text, empty, 1.0)(y_t, t).unique().item() == 3
    assert unet_denoiser(fake_unet, text, empty, 2.0)(y_t, t).unique().item() == 1 + 2 * (3 - 1)


# ------------------------------------------------------------------------------------- errors
def test_unknown_choices_are_named() -> None:
    y, x = latents(0)
    t = torch.tensor([0, 1])
    with pytest.raises(InputError, match="prediction: 'epsilon'; choose 'x'"):
        training_target(SCHEDULE, y, x, t, "epsilon")
    with pytest.raises(InputError, match="source: 'plain'; choose 'oracle'"):
        sample(lambda y_t, _: y_t, x, SCHEDULE, source="plain")


def test_shapes_and_timesteps_are_checked() -> None:
    y, x = latents(0)
    with pytest.raises(InputError, match=r"must have one shape"):
        interpolate(SCHEDULE, y, x[:, :3], torch.tensor([0, 1]))
    with pytest.raises(InputError, match=r"timesteps: shape \(1,\); expected one per sample, \(2,\)"):
        interpolate(SCHEDULE, y, x, torch.tensor([0]))
    with pytest.raises(InputError, match=r"timesteps: -1 … 5 leaves the schedule's 0 … 999"):
        interpolate(SCHEDULE, y, x, torch.tensor([5, -1]))


def test_predicting_x_at_zero_snr_is_refused() -> None:
    _, x = latents(0)
    schedule = Schedule.stable_diffusion("trailing", zero_terminal_snr=True)
    with pytest.raises(InputError, match="prediction: 'x' cannot recover y at t=999"):
        sample(lambda y_t, _: y_t, x, schedule, prediction="x")
