"""Small decoders of latents, in place of the base model's own (`sampling.decoder`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dmp_core.errors import InputError

FIELD = "sampling.decoder"
"""The setting that names one, for errors."""
_KIND = "AutoencoderTiny"
_COLOURS = 3


def check_decoder(decoder: str, config: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    """Check that a decoder takes the latents of a base model and makes images of the same size as its own decoder.

    decoder: its name, for errors. config, vae: the `config.json` of the decoder and of the base model's autoencoder.
    AutoencoderTiny decodes the latents as the U-Net sees them (its `scaling_factor` is 1), unlike AutoencoderKL.

    Raises InputError, in one line that says what does not fit.
    """
    if (kind := config.get("_class_name")) != _KIND:
        raise _refused(decoder, f"it is {'no diffusers model' if kind is None else f'an {kind}'}, not an {_KIND}")
    taken, made = config.get("latent_channels", 4), vae.get("latent_channels", 4)
    if taken != made:
        raise _refused(decoder, f"it decodes latents of {taken} channels, and base.model makes latents of {made}")
    if (colours := config.get("out_channels", _COLOURS)) != _COLOURS:
        raise _refused(decoder, f"it makes images of {colours} channels, not {_COLOURS}")
    enlarged, reduced = _enlargement(config), 2 ** (len(vae.get("block_out_channels") or [0]) - 1)
    if enlarged != reduced:
        raise _refused(decoder, f"it makes {enlarged} pixels of a latent's side, and base.model has {reduced}")
    scaling = config.get("scaling_factor", 1.0) or 1.0, config.get("shift_factor") or 0.0
    if scaling not in ((1.0, 0.0), (vae.get("scaling_factor") or 1.0, vae.get("shift_factor") or 0.0)):
        raise _refused(
            decoder, f"it scales latents by {scaling[0]:g} and shifts them by {scaling[1]:g}, unlike base.model's"
        )


def _enlargement(config: Mapping[str, Any]) -> int:
    levels = len(config.get("num_decoder_blocks") or config.get("decoder_block_out_channels") or [0] * 4)
    return int(config.get("upsampling_scaling_factor", 2) ** (levels - 1))


def _refused(decoder: str, why: str) -> InputError:
    return InputError(
        f"{FIELD}: {decoder} cannot decode: {why}; give an {_KIND} that was trained for this base (madebyollin/taesd "
        "for Stable Diffusion 1 and 2), or null for the base model's own decoder"
    )
