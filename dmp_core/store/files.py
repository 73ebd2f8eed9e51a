"""Files on a local disk: written atomically, synced, and removed if writing failed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import uuid
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
"""Raised because of the disk, its quota or its permissions, whatever is written."""

_NOT_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)
"""Raised by file systems that cannot sync a folder, and by folders that may be written but not read."""


def write_file(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file atomically: it gets its name once it is complete and on the disk, even if the power fails.

    Raises OSError that names `path`; a failed write leaves nothing behind.
    """
    temporary = path.with_name(f".{path.name}.{_mine()}{uuid.uuid4().hex[:8]}.tmp")
    try:
        make_folder(path.parent)
        _clear(path.parent, os.getpid())
        try:
            with temporary.open("xb") as stream:
                _write(stream.fileno(), data)
                if sync:
                    os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):  # does not exist once it is renamed
                temporary.unlink()
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        raise at(path, error) from error


@lru_cache(maxsize=1024)
def _clear(folder: Path, process: int) -> None:
    """Remove the temporary files that killed processes of this machine left; once per folder and process."""
    for name in os.listdir(folder):
        found = re.fullmatch(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp", name)
        if found and found[1] == _place() and not Path(f"/proc/{found[2]}").exists():
            with suppress(OSError):
                (folder / name).unlink()


def _mine() -> str:
    """Names machine and process, so that others can see whether the file is still being written; empty if unknown."""
    return f"{_place()}-{os.getpid()}-" if _place() else ""


@cache
def _place() -> str:
    return hashlib.sha256(machine().encode()).hexdigest()[:8] if machine() else ""


@cache
def machine() -> str:
    """Names this boot of this machine, and the container that process ids are counted in; empty if unknown."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def create_file(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet; raises FileExistsError if it does."""
    try:
        make_folder(path.parent)
        with path.open("xb") as stream:
            try:
                _write(stream.fileno(), data)
            except OSError:
                with suppress(OSError):
                    path.unlink()  # an empty lock would look like one that another process is writing
                raise
    except OSError as error:
        raise at(path, error) from error


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # callers would take it for the file that they want to write
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


def sync_tree(folder: Path) -> None:
    """Sync every file below a folder to the disk, whoever wrote it."""
    for directory, _, names in os.walk(folder):
        for name in names:
            with Path(directory, name).open("rb") as stream:
                os.fsync(stream.fileno())
        sync_folder(Path(directory))


def sync_folder(folder: Path) -> None:
    """Sync a folder's list of names to the disk, if the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OF_FOLDERS:
            raise at(folder, error) from error


def disk_error(error: BaseException) -> OSError | None:
    """The disk's error behind an error of a library that writes files itself; None if it has another cause."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in DISK_ERRORS:
            return seen
        if found := re.search(r"\(os error (\d+)\)", str(seen)):  # as Rust formats it (safetensors, tokenizers)
            return OSError(int(found[1]), os.strerror(int(found[1])))
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def at(path: Path | str, error: OSError) -> OSError:
    """The same error with the path: errors of `write` and `fsync` have none."""
    return OSError(error.errno, os.strerror(error.errno), str(path)) if error.errno else error


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
