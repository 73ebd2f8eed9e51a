"""Files on a local disk: written whole, synced, and gone again if writing them failed."""

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
"""Which a disk, its quota or its rights give, whatever is written."""

_NOT_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)
"""What file systems answer that cannot sync a folder, and folders that may be written but not read."""


def write_file(path: Path, data: bytes, *, sync: bool = True) -> None:
    """No reader, and no power cut, meets half a file: it gets its name when it is whole and on the disk.

    Raises OSError that names `path`; nothing of a failed write is left.
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
            with suppress(OSError):  # gone once it is renamed
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
    """Write a file that must not be there yet; raises FileExistsError if it is."""
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
    except FileExistsError:  # which would say of a file to be written that it is there already
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


def sync_tree(folder: Path) -> None:
    """Bring every file below a folder to the disk, whoever wrote it."""
    for directory, _, names in os.walk(folder):
        for name in names:
            with Path(directory, name).open("rb") as stream:
                os.fsync(stream.fileno())
        sync_folder(Path(directory))


def sync_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk, where the file system can."""
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
    """The refusal of the disk behind an error of a library that writes files itself; None if it is another error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in DISK_ERRORS:
            return seen
        if found := re.search(r"\(os error (\d+)\)", str(seen)):  # how Rust says it (safetensors, tokenizers)
            return OSError(int(found[1]), os.strerror(int(found[1])))
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def at(path: Path | str, error: OSError) -> OSError:
    """The same error, naming the path: those of `write` and `fsync` name none."""
    return OSError(error.errno, os.strerror(error.errno), str(path)) if error.errno else error


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
