"""Fetching weights: from the hub, a URL, or a mirror; a broken download is resumed, a wrong file is refused.

Over HTTP the hub's own client fetches, also what is not on the hub: one function of it, `http_get`, and not
`hf_hub_download`, which deletes what it has when its process ends.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from dmp_core.errors import InputError, MissingExtra
from dmp_core.passwords import refuse_password
from dmp_core.progress import Progress, silent
from dmp_core.store import sha256_file
from dmp_core.weights.registry import LOCK, Lock, Model, ModelFile, check, models_dir

_CHUNK = 1 << 20
_MEGABYTE = 1_000_000
_ELSEWHERE = "serve it without one, or copy the files into a folder"


def pull(model: Model, mirror: str | None = None, progress: Progress = silent) -> Path:
    """Fetch what is missing or wrong of a model; afterwards it is complete.

    mirror: a folder or URL to fetch from instead. In it, files lie as in the models directory, or below the
    model's id or hub id; a model of one file may lie there as just that file.
    progress: called with megabytes. Returns what `Model.place` says.
    Raises InputError that names the file: not available, broken off (the next call resumes), too large for the disk,
    or not the file that was published.
    """
    if mirror is not None:
        refuse_password(mirror, _ELSEWHERE)
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
    """Bytes of the file, which is renamed into place once its digest is verified."""
    root = models_dir()
    key = f"{model.folder}/{file.path}"
    target = root / key
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f"{target.name}.part")
    with _claimed(path) as part:
        _fetch(_sources(model, file, mirror), part, file, model, advance)
        part.flush()
        digest, size = _verified(path, target, key, file)
        path.replace(target)
    lock = Lock(root)
    lock.note(key, target, digest)
    lock.save()
    return size


@contextmanager
def _claimed(path: Path) -> Iterator[BinaryIO]:
    """What there is of a file, to be written at its end, by one process at a time."""
    with path.open("ab") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.stat()  # else it was renamed just now, complete
        except (BlockingIOError, FileNotFoundError):
            raise InputError(f"{path}: another process is fetching this file; wait for it") from None
        yield part


def _verified(path: Path, target: Path, key: str, file: ModelFile) -> tuple[str, int]:
    """Digest and size. Raises InputError, and deletes the file, if they are not those that are known."""
    expected = file.sha256 or Lock(models_dir()).digests.get(key)
    digest, size = sha256_file(path), path.stat().st_size
    if (file.bytes and size != file.bytes) or (expected and digest != expected):
        path.unlink()
        fix = "fetch it from elsewhere with --from"
        if not file.sha256 and expected:
            fix = f"if its publisher has changed it and you trust the new one, delete {key!r} from {LOCK}"
        found = f"{size} bytes, SHA-256 {digest}; expected {file.bytes or '?'} bytes, {expected or 'any'}"
        raise InputError(f"{target}: what came is not the file ({found}); {fix}")
    return digest, size


def _sources(model: Model, file: ModelFile, mirror: str | None) -> list[str]:
    """Where to look, in this order."""
    if mirror is None:
        return [file.url or _hub_url(model, file)]
    root = mirror.rstrip("/")
    places = [f"{root}/{folder}/{file.path}" for folder in (model.folder, model.id, model.hub) if folder]
    if len(model.files) == 1:
        places.append(f"{root}/{file.path.rpartition('/')[2]}")
    return list(dict.fromkeys(places))


def _hub_url(model: Model, file: ModelFile) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(str(model.hub), file.path, revision=model.revision)


def _fetch(sources: list[str], part: BinaryIO, file: ModelFile, model: Model, advance: Callable[[int], None]) -> None:
    """Complete `part` from the first source that has the file."""
    for source in sources:
        try:
            return _complete(source, part, file, model, advance)
        except FileNotFoundError:
            continue
    raise InputError(f"{file.path}: not found at {' or '.join(sources)}; see {model.address}")


def _complete(source: str, part: BinaryIO, file: ModelFile, model: Model, advance: Callable[[int], None]) -> None:
    """Append what is missing, again for as long as each try gains something. Raises FileNotFoundError."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    append = _append_http if source.startswith(("http://", "https://")) else _copy
    while not file.bytes or part.tell() != file.bytes:
        before = part.tell()
        try:
            return append(source, part, advance)
        except FileNotFoundError:
            raise
        except HfHubHTTPError as error:
            if error.response.status_code == 416 and before:  # the server has no more than we have, or less
                _empty(part)
                continue
            reason = _reason(source, error.response, model)
        except (httpx.LocalProtocolError, UnicodeEncodeError):  # its words would repeat the token
            raise InputError(
                f"{source}: the request cannot be sent; is HF_TOKEN the token that the hub shows?"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = str(error) or type(error).__name__
        if part.tell() <= before:
            raise InputError(
                f"{source}: not fetched to its end, {part.tell()} bytes so far ({reason}); run the same command again, "
                "it resumes there"
            )
    return None


def _reason(source: str, response: Any, model: Model) -> str:
    """Why it failed, if a later try may succeed. Raises FileNotFoundError, and InputError for what is refused."""
    code, reason = response.status_code, f"{response.status_code} {response.reason_phrase}"
    if code in (401, 403):
        fix = f"accept the terms at {model.address} and set HF_TOKEN" if model.hub else f"see {model.address}"
        raise InputError(f"{source}: refused ({code}); {fix}, or give a copy with --from") from None
    if code in (404, 410):
        raise FileNotFoundError(source) from None
    if code < 500 and code not in (408, 429):
        raise InputError(f"{source}: refused ({reason}); see {model.address}") from None
    return reason


def _append_http(url: str, part: BinaryIO, advance: Callable[[int], None]) -> None:
    from huggingface_hub import constants
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, tqdm

    class Report(tqdm):
        """A bar that shows nothing, as the client wants one."""

        def __init__(self, *, initial: int, **options: Any) -> None:
            super().__init__(disable=True)
            self.n = initial

        def update(self, n: float | None = 1) -> None:
            self.n += int(n or 0)
            advance(self.n)

    logging.getLogger("huggingface_hub.file_download").setLevel(logging.ERROR)  # our error says why once, not each try
    # The client keeps the token from other hosts that the hub redirects to.
    hub = build_hf_headers(library_name="dmp-pipeline") if url.startswith(f"{constants.ENDPOINT}/") else {}
    headers = {"user-agent": "dmp-pipeline", "accept-encoding": "identity"} | hub
    http_get(url, part, resume_size=part.tell(), headers=headers, tqdm_class=Report)


def _copy(source: str, part: BinaryIO, advance: Callable[[int], None]) -> None:
    """From a folder, or whatever else fsspec reads."""
    try:
        opened = fsspec.open(source, "rb")
    except (ValueError, ImportError) as error:  # a protocol that is unknown, or whose package is missing
        raise MissingExtra.of(error) or InputError(f"{source}: {error}; give --from a folder or a URL") from None
    with opened as stream:
        _empty(part)
        while chunk := stream.read(_CHUNK):
            part.write(chunk)
            advance(part.tell())


def _empty(part: BinaryIO) -> None:
    part.seek(0)
    part.truncate()


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
