"""Weight files: finding and reading them, and checking them against the network; shared by all labelers.

A file may contain data only: .safetensors, or a torch file that `torch.load` reads with `weights_only`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from dmp_core.errors import InputError

Shapes = Mapping[str, Sequence[int]]


def find_file(labeler: str, weights: str | Path | None, names: Sequence[str], fix: str) -> Path:
    """`weights` itself, or the first of `names` in it if it is a folder.

    fix: the remedy in the InputError when there is none.
    """
    if weights is None:
        raise InputError(f"labeler {labeler!r}: no weights given; {fix}")
    path = Path(weights)
    candidates = [path / name for name in names] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(f"labeler {labeler!r}: there is no file {' or '.join(map(str, candidates))}; {fix}")


def read(path: Path, fix: str, harmless: Callable[[Path], list[Any]] = lambda path: []) -> Any:
    """Contents of a file, tensors on the CPU and in the file's types.

    harmless: further names that a torch file may mention, as for `torch.serialization.safe_globals`.
    Raises InputError when the file is unreadable or contains more than data.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with safe_globals(harmless(path)):
            # Mapped, so that an optimizer's state in the same file is never read; the old format cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # many kinds, depending on the damage
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{path}: not readable as weights ({reason}); {fix} or, if it contains more than plain data, convert it to "
            ".safetensors if you trust it"
        ) from error


def named_tensors(loaded: Any, path: Path, containers: Sequence[str], fix: str) -> dict[str, Tensor]:
    """The named tensors in the result of `read` for `path`.

    containers: keys under which a file may store them, outermost first, next to training metadata.
    Raises InputError when there are none.
    """
    for container in containers:
        if isinstance(loaded, Mapping) and container in loaded:
            loaded = loaded[container]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise InputError(f"{path}: expected named tensors; {fix}")
    return dict(loaded)


def check_shapes(path: Path, found: Shapes, wanted: Shapes, what: str, fix: str) -> None:
    """Raise InputError unless names and shapes equal the network's."""
    other = [name for name in wanted if name in found and tuple(found[name]) != tuple(wanted[name])]
    faults = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "of another shape": [f"{name} {tuple(found[name])} instead of {tuple(wanted[name])}" for name in other],
    }
    refuse(path, faults, what, fix)


def refuse(place: str | Path, faults: Mapping[str, Sequence[str]], what: str, fix: str) -> None:
    """Raise InputError that counts each kind of fault and names the first ones, if there are any."""
    found = [f"{len(names)} {fault} (first: {', '.join(names[:3])})" for fault, names in faults.items() if names]
    if found:
        raise InputError(f"{place}: {what}: {'; '.join(found)}; {fix}")


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
