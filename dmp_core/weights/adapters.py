"""Finished adapters: where they are, and whether they fit what they are asked for. Light, for planning."""

from __future__ import annotations

from pathlib import Path

from dmp_core.diffusion.card import CARD_FILE, AdapterCard, read_card
from dmp_core.errors import InputError
from dmp_core.modalities import Code, Modality
from dmp_core.weights.resolve import resolve_folder


def check_finished(reference: str, modality: Modality, code: Code) -> None:
    """Raise InputError for a finished adapter of another modality or label encoding than the configuration's."""
    field = f"adapters.{modality.name}"
    folder = adapter_folder(reference, field)
    if folder.is_file():
        raise InputError(f"{field}: {reference}: a file; give the folder that holds it and its {CARD_FILE}")
    read_card(folder).check(f"{field}: {reference}", modality, code)


def adapter_folder(reference: str, field: str = "adapter") -> Path:
    """`shipped:NAME`, a folder, or an adapter's file. Raises InputError, with the setting, when it is none of these."""
    folder = resolve_folder(reference, "adapters", field=field)
    if folder is None:
        raise InputError(f"{field}: {reference}: no such adapter; give a folder that holds dmp.json, or shipped:NAME")
    return folder


def adapter_card(reference: str) -> AdapterCard:
    """The card of `adapter_folder`."""
    place = adapter_folder(reference)
    return read_card(place if place.is_dir() else place.parent)
