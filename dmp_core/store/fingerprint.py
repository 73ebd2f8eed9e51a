"""Content addressing: the same inputs give the same name, and the same name means the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> str:
    """Equal values give equal text: keys sorted, no white space, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(stage: str, version: int, config: Any, inputs: dict[str, str]) -> str:
    """First 12 hex digits of the SHA-256 over everything that determines a stage's output."""
    identity = {"stage": stage, "version": version, "config": config, "inputs": inputs}
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:12]


def sample_seed(dataset_seed: int, key: str) -> int:
    """A sample's own 63-bit seed, so that it can be made again alone, anywhere, in any order."""
    digest = hashlib.sha256(f"{dataset_seed}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def sha256_stream(stream: Any) -> str:
    """Digest of a binary stream, read to its end."""
    return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return sha256_stream(stream)


def sha256_files(files: Iterable[Path], root: Path) -> str:
    """One digest over the names below `root` and the contents of files, in their order."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(root).as_posix()}:{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def sha256_folder(folder: Path) -> str:
    """One digest over the names and contents of all files in a folder (documentation apart)."""
    kinds = (".json", ".safetensors", ".bin", ".txt", ".model")
    return sha256_files((path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in kinds), folder)
