"""The noise schedule, ᾱ_t of eq. 1, and the timesteps of inference.

Pure data: a schedule never steps and has no state. Diffusers' own schedulers are
read through :meth:`Schedule.from_config`; none is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from dmp_core.errors import InputError
from dmp_core.names import Spacing

SPACINGS: tuple[str, ...] = get_args(Spacing)

# Defaults of diffusers' DDIM for keys that a scheduler config omits.
_DDIM_DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "set_alpha_to_one": True,
    "rescale_betas_zero_snr": False,
}


@dataclass(frozen=True, eq=False)
class Schedule:
    """ᾱ_t for t = 0 … T-1 and the rule that picks inference timesteps.

    alphas_cumprod: (T,) float32, falling, in [0, 1].
    spacing: "leading" (as published), "trailing" (starts at T-1) or "linspace" (T-1 … 0).
    steps_offset: added to leading timesteps; 1 for Stable Diffusion.
    set_alpha_to_one: whether the last step ends at ᾱ = 1 (y itself) or at ᾱ_0, which
        leaves √(1 - ᾱ_0) of x in the result (3 % for Stable Diffusion, as published).
    """

    alphas_cumprod: Tensor
    spacing: Spacing = "leading"
    steps_offset: int = 1
    set_alpha_to_one: bool = False

    def __post_init__(self) -> None:
        _check_spacing(self.spacing)

    @classmethod
    def stable_diffusion(
        cls, spacing: Spacing = "leading", zero_terminal_snr: bool = False, set_alpha_to_one: bool = False
    ) -> Schedule:
        """The schedule of Stable Diffusion v1: β "scaled linear" from 0.00085 to 0.012, T = 1000."""
        alphas = alphas_from_betas(_betas("scaled_linear", 0.00085, 0.012, 1000))
        return cls(
            alphas_cumprod=rescale_zero_terminal_snr(alphas) if zero_terminal_snr else alphas,
            spacing=spacing,
            set_alpha_to_one=set_alpha_to_one,
        )

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        spacing: Spacing | None = None,
        zero_terminal_snr: bool | None = None,
        set_alpha_to_one: bool | None = None,
    ) -> Schedule:
        """The schedule of a diffusers scheduler config (its ``scheduler_config.json`` or ``.config``).

        spacing, zero_terminal_snr, set_alpha_to_one: replace the config's values unless None.
        Absent keys take the defaults of diffusers' DDIM. Raises InputError on a β schedule
        or a spacing that is unknown.
        """
        chosen = {
            "timestep_spacing": spacing,
            "rescale_betas_zero_snr": zero_terminal_snr,
            "set_alpha_to_one": set_alpha_to_one,
        }
        c = _DDIM_DEFAULTS | {key: config[key] for key in _DDIM_DEFAULTS if key in config}
        c |= {key: value for key, value in chosen.items() if value is not None}
        betas = (
            torch.tensor(c["trained_betas"], dtype=torch.float32)
            if c["trained_betas"] is not None
            else _betas(c["beta_schedule"], c["beta_start"], c["beta_end"], c["num_train_timesteps"])
        )
        alphas = alphas_from_betas(betas)
        return cls(
            alphas_cumprod=rescale_zero_terminal_snr(alphas) if c["rescale_betas_zero_snr"] else alphas,
            spacing=c["timestep_spacing"],
            steps_offset=c["steps_offset"],
            set_alpha_to_one=c["set_alpha_to_one"],
        )

    @property
    def num_train_timesteps(self) -> int:
        """T."""
        return self.alphas_cumprod.shape[0]

    @property
    def final_alpha(self) -> Tensor:
        """ᾱ at which the last step ends, a float32 scalar: 1, or ᾱ_0."""
        return torch.ones(()) if self.set_alpha_to_one else self.alphas_cumprod[0]

    def timesteps(self, num_steps: int) -> Tensor:
        """The ``num_steps`` timesteps of inference: int64, strictly descending, in [0, T-1]."""
        total = self.num_train_timesteps
        if not 1 <= num_steps <= total:
            raise InputError(f"num_steps: {num_steps!r}; choose 1 to {total}, the length of the schedule")
        index = torch.arange(num_steps)
        if self.spacing == "leading":
            stride = total // num_steps
            # Only at num_steps = T is there no room for the offset.
            offset = min(self.steps_offset, total - 1 - (num_steps - 1) * stride)
            return index.flip(0) * stride + offset
        if self.spacing == "trailing":
            return (total - index.double() * (total / num_steps)).round().long() - 1
        return torch.linspace(0, total - 1, num_steps, dtype=torch.float64).round().long().flip(0)

    def steps(self, num_steps: int) -> list[tuple[int, Tensor, Tensor]]:
        """(t, ᾱ_t, ᾱ of the timestep that follows) for each step of eq. 4.

        The following timestep is the next of the list, never a fixed stride: the two differ
        for "linspace" and wherever ``num_steps`` does not divide T.
        """
        timesteps = self.timesteps(num_steps)
        alphas = self.alphas_cumprod[timesteps]
        following = torch.cat([alphas[1:], self.final_alpha[None]])
        return [(int(t), alpha, after) for t, alpha, after in zip(timesteps, alphas, following, strict=True)]

    def alphas(self, timesteps: Tensor) -> Tensor:
        """ᾱ_t, float32 (B,), for int64 timesteps (B,), on their device; checking them waits for it if it is a GPU.

        Raises InputError when a timestep is outside the schedule.
        """
        low, high = (int(timesteps.min()), int(timesteps.max())) if timesteps.numel() else (0, 0)
        if low < 0 or high >= self.num_train_timesteps:
            raise InputError(f"timesteps: {low} … {high} leaves the schedule's 0 … {self.num_train_timesteps - 1}")
        return self.alphas_cumprod.to(timesteps.device)[timesteps]

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio ᾱ_t / (1 - ᾱ_t) of y against x; same shape as ``timesteps``."""
        alpha = self.alphas(timesteps)
        return alpha / (1 - alpha)


def alphas_from_betas(betas: Tensor) -> Tensor:
    """ᾱ_t = ∏_{s ≤ t} (1 - β_s), (T,) float32."""
    return torch.cumprod(1.0 - betas, dim=0)


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Shift and stretch √ᾱ so that √ᾱ_{T-1} = 0 and √ᾱ_0 stays (Lin et al. 2023, algorithm 1).

    Only then does y_T = x hold exactly in eq. 2.
    """
    root = alphas_cumprod.sqrt()
    first, last = root[0], root[-1]
    return ((root - last) * (first / (first - last))) ** 2


def _betas(kind: str, start: float, end: float, total: int) -> Tensor:
    if kind == "linear":
        return torch.linspace(start, end, total, dtype=torch.float32)
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, total, dtype=torch.float32) ** 2
    if kind == "squaredcos_cap_v2":
        edges = torch.linspace(0, 1, total + 1, dtype=torch.float64)
        alpha_bar = torch.cos((edges + 0.008) / 1.008 * torch.pi / 2) ** 2
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999).float()
    raise InputError(f"beta_schedule: {kind!r}; choose 'linear', 'scaled_linear' or 'squaredcos_cap_v2'")


def _check_spacing(spacing: str) -> None:
    if spacing not in SPACINGS:
        raise InputError(f"spacing: {spacing!r}; choose one of {', '.join(SPACINGS)}")
