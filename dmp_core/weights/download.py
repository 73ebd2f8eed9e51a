"""Fetching weights: from the hub, a URL, or a mirror; what broke off is taken up again, what is wrong is refused."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from dmp_core.errors import InputError
from dmp_core.progress import Progress, silent
from dmp_core.store import sha256_stream
from dmp_core.weights.registry import LOCK, Lock, Model, ModelFile, check, models_dir

_CHUNK = 1 << 20
_TRIES = 3  # in a row without a byte gained
_PAUSE = 0.5  # seconds before such a further try; grows with each
_TIMEOUT = 60.0  # seconds without a byte
_MEGABYTE = 1_000_000


def pull(model: Model, mirror: str | None = None, progress: Progress = silent) -> Path:
    """Fetch what is missing or wrong of a model; afterwards it is complete.

    mirror: a folder or URL to fetch from instead. In it, files lie as in the models directory, or below the
    model's id or hub id; a model of one file may lie there as just that file.
    progress: told of megabytes. Returns what `Model.place` says.
    Raises InputError that names the file: not to be had, broken off (the next call goes on there), too large for
    the disk, or not the file that was published.
    """
    wanted = [problem.file for problem in check(model)]
    if wanted and model.manual and mirror is None:
        names = ", ".join(file.path for file in wanted)
        raise InputError(
            f"{model.id}: is fetched by hand: save {names} from {model.address}, "
            f"then run: dmp models pull {model.id} --from FOLDER"
        )
    _check_disk(model, wanted)
    done = 0
    for file in wanted:

        def advance(bytes_done: int, name: str = file.path, before: int = done) -> None:
            so_far = before + bytes_done
            progress(so_far // _MEGABYTE, max(model.size, so_far) // _MEGABYTE, name)

        done += _pull_file(model, file, mirror, advance)
    return model.place()


def _pull_file(model: Model, file: ModelFile, mirror: str | None, advance: Callable[[int], None]) -> int:
    """Bytes of the file, which is renamed into place once it is known to be right."""
    root = models_dir()
    key = f"{model.folder}/{file.path}"
    target = root / key
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    _fetch(_sources(model, file, mirror), part, file, model, advance)
    lock = Lock(root)
    expected = file.sha256 or lock.digests.get(key)
    with part.open("rb") as stream:
        digest = sha256_stream(stream)
    size = part.stat().st_size
    if (file.bytes and size != file.bytes) or (expected and digest != expected):
        part.unlink()
        mend = "fetch it from elsewhere with --from"
        if not file.sha256 and expected:
            mend = f"if its publisher has changed it and you trust the new one, delete {key!r} from {LOCK}"
        told = f"{size} bytes, SHA-256 {digest}; expected {file.bytes or '?'} bytes, {expected or 'any'}"
        raise InputError(f"{target}: what came is not the file ({told}); {mend}")
    part.replace(target)
    lock.note(key, target, digest)
    lock.save()
    return size


def _sources(model: Model, file: ModelFile, mirror: str | None) -> list[str]:
    """Where to look, in this order."""
    if mirror is None:
        return [file.url or f"{_endpoint()}/{model.hub}/resolve/{model.revision or 'main'}/{file.path}"]
    root = mirror.rstrip("/")
    places = [f"{root}/{folder}/{file.path}" for folder in (model.folder, model.id, model.hub) if folder]
    if len(model.files) == 1:
        places.append(f"{root}/{file.path.rpartition('/')[2]}")
    return list(dict.fromkeys(places))


def _fetch(sources: list[str], part: Path, file: ModelFile, model: Model, advance: Callable[[int], None]) -> None:
    """Fill `part` from the first source that has the file, going on where it ends."""
    for source in sources:
        if _complete(source, part, file, model, advance):
            return
    raise InputError(f"{file.path}: not found at {' or '.join(sources)}; see {model.address}")


def _complete(source: str, part: Path, file: ModelFile, model: Model, advance: Callable[[int], None]) -> bool:
    """False if the source has no such file. Tries again for as long as each try gains something."""
    failures, reason = 0, ""
    while failures < _TRIES:
        before = _size(part)
        if file.bytes and before == file.bytes:
            return True
        try:
            with _opened(source, before, model) as (stream, start, total):
                if _append(stream, part, start, advance) >= (file.bytes or total or 0):
                    return True
            reason = "the connection closed"
        except FileNotFoundError:
            return False
        except (OSError, HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 0 if _size(part) > before else failures + 1
        time.sleep(_PAUSE * failures)
    raise InputError(
        f"{source}: not fetched to its end, {_size(part)} bytes so far ({reason}); run the same command again, it "
        "goes on from there"
    )


def _append(stream: BinaryIO, part: Path, start: int, advance: Callable[[int], None]) -> int:
    """Bytes in `part` after what came was written at `start`."""
    with part.open("r+b" if part.exists() else "wb") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{part}: another process is fetching this file; wait for it") from None
        if out.seek(0, os.SEEK_END) < start:
            raise OSError("what was there before has gone")
        out.seek(start)
        out.truncate()
        while chunk := stream.read(_CHUNK):
            out.write(chunk)
            advance(out.tell())
        return out.tell()


@contextmanager
def _opened(source: str, offset: int, model: Model) -> Iterator[tuple[Any, int, int | None]]:
    """(stream, the byte at which it starts, the file's size if it is told)."""
    if source.startswith(("http://", "https://")):
        with _ask(source, offset, model) as response:
            length = response.headers.get("Content-Length")
            start = offset if response.status == 206 else 0
            yield response, start, start + int(length) if length else None
        return
    with fsspec.open(source, "rb") as stream:
        stream.seek(offset)
        yield stream, offset, None


def _ask(source: str, offset: int, model: Model) -> Any:
    request = urllib.request.Request(source, headers={"User-Agent": "dmp-pipeline"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    token = _token() if source.startswith(f"{_endpoint()}/") else None
    if token:
        # Not sent on to the store that the hub redirects to.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and offset:  # the server has no more than we have, or less
            return _ask(source, 0, model)
        if error.code in (401, 403):
            mend = f"accept the terms at {model.address} and set HF_TOKEN" if model.hub else f"see {model.address}"
            raise InputError(f"{source}: refused ({error.code}); {mend}, or give a copy with --from") from None
        if error.code in (404, 410):
            raise FileNotFoundError(source) from None
        if error.code < 500 and error.code != 429:
            raise InputError(f"{source}: refused ({error.code} {error.reason}); see {model.address}") from None
        raise


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _token() -> str | None:
    """The hub's token, where its own tools keep it."""
    if token := os.environ.get("HF_TOKEN"):
        return token.strip()
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    file = Path(os.environ.get("HF_TOKEN_PATH") or home / "token")
    return (file.read_text().strip() or None) if file.is_file() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_disk(model: Model, wanted: list[ModelFile]) -> None:
    if not wanted:
        return
    root = models_dir()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{root}: cannot be written ({error.strerror}); set DMP_MODELS_DIR elsewhere") from None
    whole = len(wanted) == len(model.files)
    need = model.size if whole else sum(file.bytes or 0 for file in wanted)
    free = shutil.disk_usage(root).free
    if need > free:
        raise InputError(
            f"{root}: {model.id} needs {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; make room, "
            "or set DMP_MODELS_DIR to another disk"
        )
