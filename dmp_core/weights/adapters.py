"""Finished adapters: where they are, and whether they fit what they are asked for. Light, for planning."""

from __future__ import annotations

from pathlib import Path

from dmp_core.diffusion.card import CARD_FILE, AdapterCard, read_card
from dmp_core.errors import InputError
from dmp_core.modalities import Code, Modality
from dmp_core.weights.registry import models_dir
from dmp_core.weights.resolve import resolve_folder


def check_finished(reference: str, modality: Modality, code: Code, captions: bool = False) -> None:
    """Raise InputError for a finished adapter of another modality or label encoding than the configuration's.

    captions: whether it would be run with captions; one that was published as trained without them is then refused.
    """
    field = f"adapters.{modality.name}"
    folder = adapter_folder(reference, field)
    if folder.is_file():
        raise InputError(f"{field}: {reference}: a file; give the folder that holds it and its {CARD_FILE}")
    card = read_card(folder, modality.name)
    card.check(f"{field}: {reference}", modality, code)
    if captions and card.use_prompt is False:
        raise InputError(
            f"{field}: {reference}: trained without captions; set sampling.use_prompt=false and "
            "sampling.guidance_scale=1, as --preset paper-practical does"
        )


def adapter_folder(reference: str, field: str = "adapter") -> Path:
    """`shipped:NAME`, a folder, an adapter's file, or the name of a published adapter's folder, see `resolve_model`.

    Raises InputError, with the setting, when it is none of these.
    """
    folder = resolve_folder(reference, "adapters", field=field)
    if folder is None:
        raise InputError(
            f"{field}: {reference}: no such adapter; give a folder that holds dmp.json or a published adapter, its "
            f"name in ckpt/ or {models_dir()}, or shipped:NAME"
        )
    return folder


def adapter_card(reference: str, modality: str | None = None) -> AdapterCard:
    """The card of `adapter_folder`; modality: as for `read_card`."""
    place = adapter_folder(reference)
    return read_card(place if place.is_dir() else place.parent, modality)
