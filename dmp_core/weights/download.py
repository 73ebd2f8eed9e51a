"""Fetching weights: from the hub, a URL, or a mirror; a broken download is resumed, a wrong file is refused.

Over HTTP the hub's own client fetches, also what is not on the hub: its `http_stream_backoff`, and neither `http_get`,
which takes any answer that is no error for the file, nor `hf_hub_download`, which deletes what it has when its process
ends. What comes is a file only if the server says so (200 or 206, no web page, the size that is known), and all of it
is here (its length, its digest), and, with `opens`, the network that will take it does.
"""

from __future__ import annotations

import fcntl
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import fsspec

from dmp_core.errors import InputError, MissingExtra
from dmp_core.passwords import refuse_password
from dmp_core.progress import Progress, silent
from dmp_core.store import sha256_file
from dmp_core.weights.registry import LOCK, Lock, Model, ModelFile, check, models_dir, proven, what_is_wrong

_CHUNK = 1 << 20
_MEGABYTE = 1_000_000
_ELSEWHERE = "serve it without one, or copy the files into a folder"
_TRIES = 5
"""In a row that gain nothing, or too little."""
_SLOWEST = 1000
"""Bytes per second; below it a try ends, and the next one asks for the rest."""
_PATIENCE = 30.0
"""Seconds over which the rate is taken."""
_FAR = 5
"""A file of a size that is only known roughly may be this many times smaller or larger."""


class Stated(NamedTuple):
    """What the hub says of a file with its answer."""

    sha256: str | None = None
    bytes: int | None = None


@dataclass
class _Part:
    """A file under way: what there is of it, what it is a part of, and whom to tell."""

    model: Model
    file: ModelFile
    stream: BinaryIO
    advance: Callable[[int], None]
    source: Path
    """The note that keeps two versions from being mixed, see `_note_of`."""
    stated: Stated = field(default_factory=Stated)

    @property
    def key(self) -> str:
        return f"{self.model.folder}/{self.file.path}"

    def empty(self) -> None:
        self.stream.seek(0)
        self.stream.truncate()

    def add(self, chunk: bytes) -> None:
        self.stream.write(chunk)
        self.advance(self.stream.tell())

    def error(self, source: str, problem: str) -> InputError:
        return InputError(f"{self.file.path}: {source}: {problem}")

    def other(self, source: str, found: str, fix: str) -> InputError:
        return InputError(f"{self.file.path}: what came is not the file ({found}; from {source}); {fix}")


# -------------------------------------------------------------------------------------- pulling
def pull(
    model: Model,
    mirror: str | None = None,
    progress: Progress = silent,
    opens: Callable[[Model], None] | None = None,
) -> Path:
    """Fetch what is missing or wrong of a model; afterwards it is complete.

    mirror: a folder or URL to fetch from instead. In it, files lie as in the models directory, or below the
    model's id or hub id; a model of one file may lie there as just that file.
    progress: called with megabytes. Returns what `Model.place` says.
    opens: opens the complete model as the network that will take it; raises InputError if it does not fit. Only then
    are files without a stated digest trusted, and those that came just now are deleted if not.
    Raises InputError that names the file: not available, broken off (the next call resumes), too large for the disk,
    or not the file that was published.
    """
    if mirror is not None:
        refuse_password(mirror, _ELSEWHERE)
    wanted = list(dict.fromkeys(problem.file for problem in check(model, trust=opens is None)))
    if wanted and model.manual and mirror is None:
        names = ", ".join(file.path for file in wanted)
        raise InputError(
            f"{model.id}: is fetched by hand: save {names} from {model.address}, "
            f"then run: dmp models pull {model.id} --from FOLDER"
        )
    _check_disk(model, wanted)
    arrived = _pull_files(model, wanted, mirror, progress)
    if opens is not None and not proven(model):
        _open(model, opens, arrived)
    _note(model, arrived)
    return model.place()


def _pull_files(
    model: Model, wanted: Sequence[ModelFile], mirror: str | None, progress: Progress
) -> dict[ModelFile, str]:
    """Fetch each; returns their digests. Those that are as published are noted at once."""
    arrived, done = {}, 0
    for file in wanted:

        def advance(bytes_done: int, name: str = file.path, before: int = done) -> None:
            so_far = before + bytes_done
            progress(so_far // _MEGABYTE, max(model.size, so_far) // _MEGABYTE, name)

        arrived[file], size = _pull_file(model, file, mirror, advance)
        done += size
        if file.sha256:
            _note(model, {file: arrived[file]})
    return arrived


def _pull_file(model: Model, file: ModelFile, mirror: str | None, advance: Callable[[int], None]) -> tuple[str, int]:
    """Digest and size of the file, which is renamed into place once they are verified."""
    target = models_dir() / model.folder / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f"{target.name}.part")
    with _claimed(path) as stream:
        part = _Part(model, file, stream, advance, _note_of(path))
        found = _fetch(_sources(model, file, mirror), part, path)
        path.replace(target)
        part.source.unlink(missing_ok=True)
    return found


def _open(model: Model, opens: Callable[[Model], None], arrived: dict[ModelFile, str]) -> None:
    try:
        opens(model)
    except InputError as error:
        gone = [file.path for file in arrived if not file.sha256]
        for path in gone:
            (models_dir() / model.folder / path).unlink(missing_ok=True)
        kept = f"; {', '.join(gone)} not kept" if gone else ""
        raise InputError(
            f"{model.id}: what came cannot be used: {error}{kept}; fetch it from elsewhere with --from"
        ) from None


def _note(model: Model, digests: dict[ModelFile, str]) -> None:
    lock = Lock(models_dir())
    for file, digest in digests.items():
        key = f"{model.folder}/{file.path}"
        lock.note(key, lock.path.parent / key, digest)
    lock.save()


@contextmanager
def _claimed(path: Path) -> Iterator[BinaryIO]:
    """What there is of a file, to be written at its end, by one process at a time."""
    with path.open("ab") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.stat()  # else it was renamed just now, complete
        except (BlockingIOError, FileNotFoundError):
            raise InputError(f"{path}: another process is fetching this file; wait for it") from None
        try:
            yield part
        finally:
            if not part.tell():
                path.unlink(missing_ok=True)
                _note_of(path).unlink(missing_ok=True)


def _note_of(path: Path) -> Path:
    """Beside a part: where it comes from, and the version there."""
    return path.with_name(f"{path.name}.from")


def _verified(source: str, part: _Part, path: Path) -> tuple[str, int]:
    """Digest and size. Raises InputError, and empties the file, if they are not those that are known."""
    part.stream.flush()
    file, size, problem = part.file, path.stat().st_size, what_is_wrong(path)
    digest = sha256_file(path)
    locked = Lock(models_dir()).digests.get(part.key)
    bytes_known, known = file.bytes or part.stated.bytes, file.sha256 or part.stated.sha256 or locked
    other = (bytes_known and size != bytes_known) or any(
        each not in (None, digest) for each in (file.sha256, part.stated.sha256, locked)
    )
    if problem is None and not other:
        return digest, size
    part.empty()
    if problem is not None:
        raise part.other(source, f"it {problem}", _by_hand(part))
    fix = "fetch it from elsewhere with --from"
    if not file.sha256 and locked not in (None, digest):
        known = locked
        fix = f"if its publisher has changed it and you trust the new one, delete {part.key!r} from {LOCK}"
    found = f"{size} bytes, SHA-256 {digest}; expected {bytes_known or '?'} bytes, {known or 'any'}"
    raise part.other(source, found, fix)


def _sources(model: Model, file: ModelFile, mirror: str | None) -> list[str]:
    """Where to look, in this order."""
    if mirror is None:
        return [file.url or _hub_url(model, file), *file.mirrors]
    root = mirror.rstrip("/")
    places = [f"{root}/{folder}/{file.path}" for folder in (model.folder, model.id, model.hub) if folder]
    if len(model.files) == 1:
        places.append(f"{root}/{file.path.rpartition('/')[2]}")
    return list(dict.fromkeys(places))


def _hub_url(model: Model, file: ModelFile) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(str(model.hub), file.path, revision=model.revision)


def _fetch(sources: list[str], part: _Part, path: Path) -> tuple[str, int]:
    """Digest and size of the file from the first source that has it."""
    refused: list[str] = []
    for source in sources:
        try:
            _complete(source, part)
            return _verified(source, part, path)
        except FileNotFoundError:
            continue
        except InputError as error:
            refused.append(str(error))
    if refused:
        raise InputError("; ".join(refused))
    raise InputError(f"{part.file.path}: not found at {' or '.join(sources)}; see {part.model.address}")


def _complete(source: str, part: _Part) -> None:
    """Append what is missing, again for as long as tries gain something. Raises FileNotFoundError."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    append = _append_http if source.startswith(("http://", "https://")) else _copy
    vain = 0
    while not part.file.bytes or part.stream.tell() != part.file.bytes:
        before = part.stream.tell()
        try:
            return append(source, part)
        except (FileNotFoundError, InputError):
            raise
        except HfHubHTTPError as error:
            if error.response.status_code == 416 and before:
                if _all_there(error.response, before):
                    return None
                part.empty()  # the server has another file, which is shorter
                continue
            reason = _reason(source, error.response, part)
        except (httpx.LocalProtocolError, UnicodeEncodeError):  # its words would repeat the token
            raise part.error(source, "the request cannot be sent; is HF_TOKEN the token that the hub shows?") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = str(error) or type(error).__name__
            vain = _TRIES if isinstance(error, httpx.InvalidURL | OfflineModeIsEnabled) else vain
        vain = 0 if part.stream.tell() >= before + _SLOWEST * _PATIENCE else vain + 1
        if vain >= _TRIES or append is _copy:
            raise part.error(
                source,
                f"not fetched to its end, {part.stream.tell()} bytes so far ({reason}); run the same command again, "
                "it resumes there",
            )
        time.sleep(1)
    return None


def _all_there(response: Any, size: int) -> bool:
    """Whether a server that has no more than we do (416) says that this is all."""
    return bool(response.headers.get("content-range", "").strip() == f"bytes */{size}")


def _reason(source: str, response: Any, part: _Part) -> str:
    """Why it failed, if a later try may succeed. Raises FileNotFoundError, and InputError for what is refused."""
    code, reason, model = response.status_code, f"{response.status_code} {response.reason_phrase}", part.model
    if code in (401, 403):
        fix = f"accept the terms at {model.address} and set HF_TOKEN" if model.hub else f"see {model.address}"
        raise part.error(source, f"refused ({code}); {fix}, or give a copy with --from") from None
    if code in (404, 410):
        raise FileNotFoundError(source) from None
    if code < 500 and code not in (408, 429):
        raise part.error(source, f"refused ({reason}); see {model.address}") from None
    return reason


def _by_hand(part: _Part) -> str:
    """The way that is left where a server answers no program."""
    return f"save it with a browser from {part.model.address}, then run: dmp models pull {part.model.id} --from FOLDER"


# ----------------------------------------------------------------------------------------- HTTP
def _append_http(url: str, part: _Part) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)  # our error says why once, not each try
    # The client keeps the token from other hosts that the hub redirects to.
    hub = build_hf_headers(library_name="dmp-pipeline") if url.startswith(f"{constants.ENDPOINT}/") else {}
    headers = {"user-agent": "dmp-pipeline", "accept-encoding": "identity"} | hub | _range(url, part)
    with http_stream_backoff(
        "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, retry_on_exceptions=(),
        retry_on_status_codes=(408, 429),
    ) as response:  # fmt: skip
        if response.status_code >= 400:
            response.read()
            hf_raise_for_status(response)
        end = _checked(url, response, part)
        part.source.write_text(f"{url}\n{response.headers.get('etag', '')}\n")
        _stream(response.iter_bytes(), part)
    if end is not None and part.stream.tell() != end:
        raise OSError(f"{part.stream.tell()} bytes came of {end}")


def _range(url: str, part: _Part) -> dict[str, str]:
    """Headers that ask for the rest of the same version; the part is emptied if it is of another place, and no digest
    would show that."""
    source, tag = (*part.source.read_text().splitlines(), "")[:2] if part.source.exists() else ("", "")
    if source not in ("", url) and not part.file.sha256:
        part.empty()
    if not part.stream.tell():
        return {}
    same = {"if-range": tag} if source == url and tag.startswith('"') else {}
    return {"range": f"bytes={part.stream.tell()}-"} | same


def _checked(url: str, response: Any, part: _Part) -> int | None:
    """The whole file's size, if the answer states it. Raises InputError when the answer is not the file."""
    kind, length = response.headers.get("content-type", ""), response.headers.get("content-length")
    code = f"{response.status_code} {response.reason_phrase}"
    if response.status_code not in (200, 206) or length == "0" or _is_page(kind, part.file):
        received = f"answer {code}, {length or 'an unknown number of'} bytes of {kind or 'no stated type'}"
        raise part.other(url, received, _by_hand(part))
    part.stated = _stated_by_hub(response)
    if response.status_code == 206:
        start, size = _content_range(response)
        if start != part.stream.tell():
            part.empty()
            raise OSError("the server sent another part than was asked for")
    else:
        part.empty()  # a server without ranges, or of another version, sends all
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        size = int(length) if length and not encoded else None
    _check_size(url, part, size)
    return size


def _is_page(kind: str, file: ModelFile) -> bool:
    text, suffix = kind.partition(";")[0].strip().lower(), Path(file.path).suffix
    return text == "text/html" or (text in ("application/json", "application/xml") and suffix not in (".json", ".xml"))


def _content_range(response: Any) -> tuple[int | None, int | None]:
    """First byte and the whole size, of `bytes 5-9/10`."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", "").strip())
    if found is None:
        return None, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _check_size(url: str, part: _Part, size: int | None) -> None:
    """Raise InputError for a file of another size than is known, or far from what is known roughly."""
    if size is None:
        return
    known = part.file.bytes or part.stated.bytes
    rough = int(part.model.approximate_gb * 1e9) if len(part.model.files) == 1 else None
    if known is None and rough is not None and not rough / _FAR <= size <= rough * _FAR:
        raise part.other(url, f"{size} bytes, expected about {rough}", _by_hand(part))
    if known is not None and size != known:
        raise part.other(url, f"{size} bytes, expected {known}", _by_hand(part))


def _stated_by_hub(response: Any) -> Stated:
    """Digest and size in the hub's own answer, which redirects to where the bytes lie."""
    for answer in (*response.history, response):
        tag = answer.headers.get("x-linked-etag", "").strip('"')
        if re.fullmatch("[0-9a-f]{64}", tag):
            size = answer.headers.get("x-linked-size", "")
            return Stated(tag, int(size) if size.isdigit() else None)
    return Stated()


def _stream(chunks: Iterator[bytes], part: _Part) -> None:
    """Write as it comes: what a broken connection has brought is kept. Raises OSError when it comes too slowly."""
    since, mark = time.monotonic(), part.stream.tell()
    for chunk in chunks:
        part.add(chunk)
        waited = time.monotonic() - since
        if waited > _PATIENCE:
            if part.stream.tell() - mark < _SLOWEST * waited:
                raise OSError(f"{part.stream.tell() - mark} bytes in {waited:.0f} s")
            since, mark = time.monotonic(), part.stream.tell()


# --------------------------------------------------------------------------------------- copies
def _copy(source: str, part: _Part) -> None:
    """From a folder, or whatever else fsspec reads."""
    try:
        opened = fsspec.open(source, "rb")
    except (ValueError, ImportError) as error:  # a protocol that is unknown, or whose package is missing
        raise MissingExtra.of(error) or InputError(f"{source}: {error}; give --from a folder or a URL") from None
    with opened as stream:
        part.empty()
        while chunk := stream.read(_CHUNK):
            part.add(chunk)


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
