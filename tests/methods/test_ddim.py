"""DDIM both ways, compared with diffusers' schedulers and with a flow in closed form."""

from __future__ import annotations

import pytest
import torch

from dmp_core.diffusion import Schedule
from dmp_core.errors import InputError
from dmp_core.methods.shared.ddim import ddim, inverted, last_steps, seeded_noise

SCHEDULE = Schedule.stable_diffusion()
CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}


def some_network(latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.tanh(latents.roll(1, dims=1)) * (0.5 + t.view(-1, 1, 1, 1) / 1000)


def latents() -> torch.Tensor:
    return torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backwards", [False, True])
def test_steps_are_those_of_diffusers_schedulers(backwards):
    """20 steps divide 1000 and are leading: where diffusers' fixed stride is right."""
    from diffusers import DDIMInverseScheduler, DDIMScheduler

    scheduler = (DDIMInverseScheduler if backwards else DDIMScheduler)(**CONFIG)
    scheduler.set_timesteps(20)
    expected = latents()
    for t in scheduler.timesteps:
        output = some_network(expected, t.expand(2))
        expected = scheduler.step(output, t, expected, return_dict=False)[0]
    steps = SCHEDULE.steps(20)
    torch.testing.assert_close(
        ddim(some_network, latents(), inverted(steps) if backwards else steps), expected, atol=2e-4, rtol=1e-4
    )


def gaussian_noise(deviation: float):
    """The expected noise at y_t where clean data are N(0, deviation²): linear in y_t."""

    def denoise(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha = SCHEDULE.alphas_cumprod[t].view(-1, 1, 1, 1)
        return (1 - alpha).sqrt() / (alpha * deviation**2 + 1 - alpha) * noisy

    return denoise


def test_inversion_of_gaussian_data_is_a_change_of_scale():
    """The flow of N(0, s²) to noise keeps every point's distance in standard deviations."""
    clean = 0.3 * latents()
    noise = ddim(gaussian_noise(0.3), clean, inverted(SCHEDULE.steps(500)))
    torch.testing.assert_close(noise, clean / 0.3, atol=0.05, rtol=0.03)


def test_a_bridge_between_two_gaussians_maps_one_onto_the_other():
    """DDIB in closed form: out of N(0, 0.3²), into N(0, 2²); more steps are more accurate."""
    clean = 0.3 * latents()
    errors = []
    for count in (10, 100, 1000):
        steps = SCHEDULE.steps(count)
        there = ddim(gaussian_noise(0.3), clean, inverted(steps))
        errors.append(float((ddim(gaussian_noise(2.0), there, steps) - clean / 0.3 * 2.0).abs().mean()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.05


def test_inversion_and_generation_return_the_input():
    clean = latents()
    errors = []
    for count in (20, 200):
        steps = SCHEDULE.steps(count)
        errors.append(
            float((ddim(some_network, ddim(some_network, clean, inverted(steps)), steps) - clean).abs().max())
        )
    assert errors[1] < errors[0] / 4


@pytest.mark.parametrize(("strength", "first", "count"), [(1.0, 981, 50), (0.5, 481, 25), (0.001, 1, 1)])
def test_strength_chooses_where_to_start(strength, first, count):
    steps = last_steps(SCHEDULE, 50, strength)
    assert (steps[0][0], len(steps)) == (first, count)


@pytest.mark.parametrize("strength", [0.0, 1.2])
def test_strength_outside_its_range_is_refused(strength):
    with pytest.raises(InputError, match=r"strength: .*at most 1"):
        last_steps(SCHEDULE, 50, strength)


def test_noise_is_the_samples_own():
    both = seeded_noise([3, 8], (2, 4))
    assert torch.equal(both[1], seeded_noise([8], (2, 4))[0])
    assert not torch.equal(both[0], both[1])
