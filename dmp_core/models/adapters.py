"""Finished adapters: where they are, and whether they fit what they are asked for. Light, for planning."""

from __future__ import annotations

from pathlib import Path

from dmp_core.config.card import CARD_FILE, AdapterCard, read_card
from dmp_core.config.stages import LatentsConfig, Task
from dmp_core.errors import InputError
from dmp_core.models.shipped import resolve_folder


def check_finished(reference: str, task: Task, latents: LatentsConfig) -> None:
    """Raise InputError for a finished adapter of another task or label encoding than the configuration's."""
    folder = adapter_folder(reference, f"adapters.{task}")
    if folder.is_file():
        raise InputError(f"adapters.{task}: {reference}: a file; give the folder that holds it and its {CARD_FILE}")
    read_card(folder).check(f"adapters.{task}: {reference}", task, latents.depth_scale, latents.palette)


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
