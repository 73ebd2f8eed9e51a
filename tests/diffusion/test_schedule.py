"""Schedules and timesteps, for every spacing and step count."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from dmp_core.diffusion import Schedule
from dmp_core.diffusion.schedule import SPACINGS, rescale_zero_terminal_snr
from dmp_core.errors import InputError

spacings = st.sampled_from(SPACINGS)
step_counts = st.integers(1, 1000)


@given(spacings, step_counts)
def test_timesteps_fall_strictly_within_the_schedule(spacing: str, count: int) -> None:
    timesteps = Schedule.stable_diffusion(spacing).timesteps(count)
    assert timesteps.dtype == torch.int64
    assert timesteps.shape == (count,)
    assert (timesteps.diff() < 0).all()
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999


@given(spacings, step_counts)
def test_steps_take_the_following_timestep_from_the_list(spacing: str, count: int) -> None:
    schedule = Schedule.stable_diffusion(spacing)
    steps = schedule.steps(count)
    assert [t for t, _, _ in steps] == schedule.timesteps(count).tolist()
    for (_, _, following), (_, alpha, _) in pairwise(steps):
        assert following == alpha
    assert steps[-1][2] == schedule.alphas_cumprod[0]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 10, 30, 50, 999])
def test_timesteps_are_diffusers_own(spacing: str, count: int) -> None:
    scheduler = DDIMScheduler(timestep_spacing=spacing, steps_offset=1)
    scheduler.set_timesteps(count)
    assert Schedule.stable_diffusion(spacing).timesteps(count).tolist() == scheduler.timesteps.tolist()


def test_five_steps_as_the_findings_name_them() -> None:
    assert Schedule.stable_diffusion("leading").timesteps(5).tolist() == [801, 601, 401, 201, 1]
    assert Schedule.stable_diffusion("trailing").timesteps(5)[0] == 999
    assert Schedule.stable_diffusion("linspace").timesteps(5).tolist() == [999, 749, 500, 250, 0]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_all_timesteps(spacing: str) -> None:
    assert Schedule.stable_diffusion(spacing).timesteps(1000).tolist() == list(range(999, -1, -1))


def test_zero_terminal_snr() -> None:
    plain, zero = Schedule.stable_diffusion(), Schedule.stable_diffusion(zero_terminal_snr=True)
    assert plain.alphas_cumprod[-1] > 0
    assert zero.alphas_cumprod[-1] == 0
    assert zero.alphas_cumprod[0] == pytest.approx(plain.alphas_cumprod[0].item(), abs=1e-7)
    assert (zero.alphas_cumprod.diff() < 0).all()
    assert zero.snr(torch.tensor([999])) == 0


@pytest.mark.parametrize(
    "config",
    [
        {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1},
        {"beta_schedule": "linear", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100, "set_alpha_to_one": False},
        {"trained_betas": [0.1, 0.2, 0.3, 0.4], "num_train_timesteps": 4},
    ],
)
def test_from_config_reads_what_diffusers_reads(config: dict) -> None:
    scheduler = DDIMScheduler(**config)
    schedule = Schedule.from_config(scheduler.config)
    torch.testing.assert_close(schedule.alphas_cumprod, scheduler.alphas_cumprod, rtol=0, atol=2e-6)
    assert schedule.num_train_timesteps == scheduler.config.num_train_timesteps
    torch.testing.assert_close(schedule.final_alpha, scheduler.final_alpha_cumprod, rtol=0, atol=1e-6)
    scheduler.set_timesteps(3)
    assert schedule.timesteps(3).tolist() == scheduler.timesteps.tolist()


def test_choices_replace_those_of_the_config() -> None:
    config = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").config
    schedule = Schedule.from_config(config, spacing="trailing", zero_terminal_snr=True, set_alpha_to_one=False)
    expected = Schedule.stable_diffusion("trailing", zero_terminal_snr=True)
    assert torch.equal(schedule.alphas_cumprod, expected.alphas_cumprod)
    assert (schedule.spacing, schedule.set_alpha_to_one) == ("trailing", False)
    assert Schedule.from_config(config | {"rescale_betas_zero_snr": True}, zero_terminal_snr=False).alphas_cumprod[-1]


def test_rescaling_twice_changes_nothing() -> None:
    once = rescale_zero_terminal_snr(Schedule.stable_diffusion().alphas_cumprod)
    torch.testing.assert_close(rescale_zero_terminal_snr(once), once, rtol=0, atol=1e-7)


@pytest.mark.parametrize("count", [0, -1, 1001])
def test_impossible_step_counts(count: int) -> None:
    with pytest.raises(InputError, match=rf"num_steps: {count}; choose 1 to 1000"):
        Schedule.stable_diffusion().timesteps(count)


def test_unknown_choices_are_named() -> None:
    with pytest.raises(InputError, match="spacing: 'karras'; choose one of leading, trailing, linspace"):
        Schedule.stable_diffusion("karras")
    with pytest.raises(InputError, match="beta_schedule: 'sigmoid'; choose"):
        Schedule.from_config({"beta_schedule": "sigmoid"})
