"""The mini prior: a small Stable Diffusion of our own, trained on diverse rendered scenes.

`config` the recipe · `data` scenes to train on · `vae`, `unet` the two trainings on one `loop` ·
`text` tokenizer and text encoder · `standardise` unit latents · `export` the diffusers folder and its card.
Light to import: torch and diffusers are imported by the functions that need them.
"""

from __future__ import annotations

from dmp_core.prior.config import PriorConfig, load_recipe
from dmp_core.prior.train import PARTS, train_prior

__all__ = ["PARTS", "PriorConfig", "load_recipe", "train_prior"]
