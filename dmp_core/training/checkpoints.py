"""Checkpoints of a training run: written whole or not at all, each with its digest, the newest two kept."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch

from dmp_core.errors import InputError
from dmp_core.finite import find_non_finite
from dmp_core.store.files import sync_folder

KEEP = 2
"""The last one, and one to fall back on if the disk loses it."""

LOG = "log"
"""Entry of a state with the logged rows. Only there may a number be infinite: the gradient of a step that was
skipped in half precision."""

STATE_FILE, DIGEST_FILE = "state.pt", "state.sha256"
# Errors raised by reading a file whose bytes have changed.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

logger = logging.getLogger(__name__)


class OtherTraining(InputError):
    """The checkpoints belong to another training run."""


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` (tensors and plain values) as `step-…` under `folder`; delete all but the last `KEEP`.

    A killed process leaves at most a temporary folder, which the next call removes. Raises InputError when a number
    in it is not finite, and OSError when the disk is full or fails; earlier checkpoints stay in both cases.
    """
    if (name := _spoilt(state)) is not None:
        raise InputError(
            f"training: {name} holds NaN or infinity after step {step}; lower the learning rate, or train in full "
            f"precision. Nothing was saved; earlier checkpoints are kept in {folder}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".writing-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    final = folder / f"step-{step:08d}"
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        _write(temporary, state)
        _remove(final)
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder)
    _drop_old(folder, step)
    return final


def load_checkpoint(folder: Path, identity: str) -> dict[str, Any] | None:
    """The newest intact state, or None; damaged ones are skipped with a warning.

    identity: identifies the run (`identity_of`); a checkpoint of another run is refused with OtherTraining.
    """
    found = _finished(folder)
    for path in reversed(found):
        state = read_checkpoint(path / STATE_FILE)
        if state is None:
            continue
        if state.get("identity") != identity:
            raise OtherTraining(
                f"{path}: checkpoint of another training run (its settings, data or base model differ); "
                f"delete {folder} to start from the beginning"
            )
        return state
    if found:
        logger.warning("%s: no usable checkpoint; training starts from the beginning", folder)
    return None


def read_checkpoint(file: Path) -> dict[str, Any] | None:
    """The state in one file; None, with a warning, unless it is as it was written, and finite.

    Checkpoints from before digests have none next to them: there the checksums of torch's own archive decide.
    """
    try:
        return _read(file)
    except PermissionError:
        raise  # the file may be intact
    except _DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        logger.warning("%s: this checkpoint is damaged and skipped (%s)", file, reason)
        return None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors in here become an OSError that names the file, which a failed write does not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _write(folder: Path, state: dict[str, Any]) -> None:
    path = folder / STATE_FILE
    with naming(path), path.open("w+b") as stream:
        _save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    path = folder / DIGEST_FILE
    with naming(path), path.open("w") as note:
        note.write(digest)
        note.flush()
        os.fsync(note.fileno())
    sync_folder(folder)


def _save(state: dict[str, Any], stream: BinaryIO) -> None:
    try:
        torch.save(state, stream)
    except RuntimeError as error:
        # This is how torch reports a failed write: the archive does not have the expected length.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _read(file: Path) -> dict[str, Any]:
    """Raises one of `_DAMAGE`."""
    digest = file.with_name(DIGEST_FILE)
    if digest.exists():
        with file.open("rb") as stream:
            changed = hashlib.file_digest(stream, "sha256").hexdigest() != digest.read_text()
    else:
        with zipfile.ZipFile(file) as archive:
            changed = archive.testzip() is not None
    if changed:
        raise ValueError("its bytes have changed")
    state = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or "step" not in state:
        raise ValueError("not a checkpoint")
    if (name := _spoilt(state)) is not None:
        raise ValueError(f"{name} holds NaN or infinity")
    return state


def _spoilt(state: dict[str, Any]) -> str | None:
    return find_non_finite({name: part for name, part in state.items() if name != LOG})


def _drop_old(folder: Path, step: int) -> None:
    """Keep the last `KEEP` up to this step; later ones were skipped when the run was resumed."""
    upto = [path for path in _finished(folder) if _step(path) <= step]
    for path in _finished(folder):
        if path not in upto[-KEEP:]:
            _remove(path)


def _finished(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)), key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
