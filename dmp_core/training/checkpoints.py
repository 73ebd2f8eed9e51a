"""Checkpoints of a training run: written whole or not at all, the newest two kept."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from dmp_core.errors import InputError

KEEP = 2
"""The last one, and one to fall back on should the disk have lost it."""

_FILE = "state.pt"


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` (tensors and plain values) as `step-…` under `folder`; drop all but the last `KEEP`.

    A killed process leaves at most a temporary folder, which the next call removes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".writing-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    with (temporary / _FILE).open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    final = folder / f"step-{step:08d}"
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    for old in _finished(folder)[:-KEEP]:
        shutil.rmtree(old)
    return final


def load_checkpoint(folder: Path, identity: str) -> dict[str, Any] | None:
    """The newest readable state, or None when there is none.

    identity: what the run is about; a checkpoint of another run is refused with InputError.
    """
    for path in reversed(_finished(folder)):
        try:
            state: dict[str, Any] = torch.load(path / _FILE, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, UnpicklingError):
            continue  # damaged on disk: that is what the older one is for
        if state["identity"] != identity:
            raise InputError(
                f"{path}: checkpoint of another training run (its settings, data or base model differ); "
                f"delete {folder} to start anew"
            )
        return state
    return None


def _finished(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))
