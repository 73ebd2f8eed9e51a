"""What a folder of one's own images holds: images, captions and labels, each with its digest.

Reads names, headers and digests, no pixels; that is `folder.check_folder`. Naming: `docs/own_images.md`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from PIL import ExifTags, Image

from dmp_core.config.stages import TASKS, Task
from dmp_core.errors import InputError
from dmp_core.labelers.encoding import LABEL_EXTENSIONS
from dmp_core.store import canonical_json, sample_key, sample_seed
from dmp_core.store.fingerprint import sha256_stream

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Pillow's names of these; no other decoder ever sees the user's files."""
LABEL_NAMES: dict[str, Task] = {LABEL_EXTENSIONS[task].partition(".")[0]: task for task in TASKS} | {
    str(task): task for task in TASKS
}
"""What a label's folder, or the word before its suffix, may be called."""
LABEL_SUFFIXES: dict[Task, tuple[str, ...]] = {
    task: (".npy", ".png") if task == "depth" else (".png",) for task in TASKS
}
SPLIT_FOLDERS = ("train", "in_domain", "out_of_domain", "arbitrary")
METADATA = "metadata.jsonl"
PREDICTION = re.compile(rf".*\.(?:{'|'.join(LABEL_NAMES)})\.(?:pred|view)\.(?:png|npy)")
"""What `dmp predict` writes, perhaps beside the images: neither image nor label."""
_CAPTIONS = ("prompt", "text", "caption")
# A wall of a thousand lines hides the first; the rest shows once these are mended.
_MOST_PROBLEMS = 20
BROKEN = (OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, Image.DecompressionBombError)
"""What Pillow raises on files that are cut short, damaged or meant to exhaust the memory."""


@dataclass(frozen=True)
class LabelFile:
    """A label that came with an image; `file` is relative to the folder, with forward slashes."""

    task: Task
    file: str
    sha256: str


@dataclass(frozen=True)
class OwnImage:
    """One image of the folder."""

    file: str
    sha256: str
    size: tuple[int, int]
    """Height and width in pixels, as shown: after the EXIF orientation."""
    keyword: str
    prompt: str
    labels: tuple[LabelFile, ...]


@dataclass(frozen=True)
class Listing:
    """The images of a folder, in the order of their names."""

    root: Path
    images: tuple[OwnImage, ...]
    ignored: tuple[str, ...] = ()
    """Files that are neither image nor label nor caption."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks whose label lies beside every image. Raises InputError for one that only some images have."""
        have = Counter(label.task for image in self.images for label in image.labels)
        for task in TASKS:
            if 0 < have[task] < len(self.images):
                first = next(image for image in self.images if all(label.task != task for label in image.labels))
                wanted = str(PurePosixPath(first.file).with_suffix(f".{LABEL_EXTENSIONS[task]}"))
                raise InputError(
                    f"{self.root / wanted}: missing, though {have[task]} of {len(self.images)} images have their "
                    f"{task}; add the label, or take those of the other images away"
                )
        return tuple(task for task in TASKS if have[task])

    @property
    def digest(self) -> str:
        """Stands for names and contents of images, captions and labels; not for where they lie."""
        rows = [
            (i.file, i.sha256, i.keyword, i.prompt, [(x.task, x.file, x.sha256) for x in i.labels]) for i in self.images
        ]
        return hashlib.sha256(canonical_json(rows).encode()).hexdigest()[:16]


def read_folder(folder: str | Path, share: tuple[float, float] = (0.0, 1.0), count: int | None = None) -> Listing:
    """List a folder with its sub-folders; files are read again only when their size or time has changed.

    share, count: see `SplitConfig`.
    Raises one InputError with a line for every file that cannot be used, and how to mend it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder; give one that holds {_accepted()} files")
    whole = _scan(root.resolve(), tuple(_walk(root.resolve())))
    return replace(whole, images=_part(whole, share)[:count])


def prompts_table(listing: Listing, split: str, seed: int) -> pd.DataFrame:
    """The listing as the prompts table of its split, with the columns file, sha256 and labels (JSON) besides."""
    import pandas as pd

    keys = [sample_key(split, index) for index in range(len(listing.images))]
    labels = [{x.task: {"file": x.file, "sha256": x.sha256} for x in image.labels} for image in listing.images]
    return pd.DataFrame(
        {
            "key": keys,
            "split": split,
            "keyword": [image.keyword for image in listing.images],
            "prompt": [image.prompt for image in listing.images],
            "seed": pd.Series([sample_seed(seed, key) for key in keys], dtype="int64"),
            "generator": "folder",
            "round": pd.Series([0] * len(keys), dtype="int64"),
            "file": [image.file for image in listing.images],
            "sha256": [image.sha256 for image in listing.images],
            "labels": [canonical_json(entry) for entry in labels],
        }
    )


def refuse(problems: Iterable[str]) -> None:
    """Raise one InputError with a line a problem, if there is any."""
    lines = list(problems)
    if len(lines) > _MOST_PROBLEMS:
        lines = [*lines[:_MOST_PROBLEMS], f"… and {len(lines) - _MOST_PROBLEMS} more"]
    if lines:
        raise InputError("\n".join(lines))


def _part(listing: Listing, share: tuple[float, float]) -> tuple[OwnImage, ...]:
    """Equal files share a rank, so that they never come to lie in two parts."""
    ranked = sorted({image.sha256 for image in listing.images})
    chosen = {digest for rank, digest in enumerate(ranked) if share[0] <= rank / len(ranked) < share[1]}
    if not chosen:
        raise InputError(f"{listing.root}: no image falls into the share {share[0]:g} to {share[1]:g}; give it more")
    return tuple(image for image in listing.images if image.sha256 in chosen)


def _accepted() -> str:
    return "PNG, JPEG, WebP, BMP or TIFF"


# ------------------------------------------------------------------------------------ the files
def _walk(root: Path) -> list[tuple[str, int, int]]:
    """(name, bytes, time) of every file that is not hidden."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        for path in (Path(folder, name) for name in files if not name.startswith(".")):
            stat = path.stat() if path.exists() else path.lstat()
            found.append((path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns))
    return sorted(found)


@lru_cache(maxsize=16)
def _scan(root: Path, files: tuple[tuple[str, int, int], ...]) -> Listing:
    """The whole folder; sizes and times in `files` are the cache's key only."""
    everything = [PurePosixPath(name) for name, _, _ in files]
    names = [name for name in everything if not PREDICTION.fullmatch(name.name)]
    labels, problems = _labels(root, names)
    images = [name for name in names if name not in labels and name.suffix.lower() in SUFFIXES]
    if not images and not problems:
        raise InputError(f"{root}: no image in it; put {_accepted()} files there")
    by_stem: dict[str, list[PurePosixPath]] = {}
    for image in images:
        by_stem.setdefault(_stem(image), []).append(image)
    captions, more = _captions(root, names, by_stem)
    problems += more + _clashes(root, by_stem)
    problems += [
        f"{root / name}: a label without an image; there is no {stem}.jpg, .png … beside it"
        for name, (_, stem) in labels.items()
        if stem not in by_stem
    ]
    with ThreadPoolExecutor() as pool:
        headers = dict(zip(images, pool.map(lambda name: _header(root / name), images), strict=True))
        digests = dict(zip(labels, pool.map(lambda name: _sha256(root / name), labels), strict=True))
    problems += [header for header in headers.values() if isinstance(header, str)]
    refuse(sorted(problems))
    beside: dict[str, list[LabelFile]] = {}
    for name, (task, stem) in labels.items():
        beside.setdefault(stem, []).append(LabelFile(task, str(name), digests[name]))
    listed = []
    for name, header in headers.items():
        assert not isinstance(header, str)
        keyword, prompt = captions[_stem(name)]
        listed.append(OwnImage(str(name), *header, keyword, prompt, tuple(beside.get(_stem(name), ()))))
    known = {*images, *labels, *(name for name in names if name.name == METADATA or _is_caption(name, by_stem))}
    return Listing(root, tuple(listed), tuple(str(name) for name in everything if name not in known))


def _stem(name: PurePosixPath) -> str:
    return str(name.with_suffix(""))


def _labels(root: Path, names: Iterable[PurePosixPath]) -> tuple[dict[PurePosixPath, tuple[Task, str]], list[str]]:
    """Label file → (task, stem of its image), and what is wrong with their names."""
    found: dict[PurePosixPath, tuple[Task, str]] = {}
    taken: dict[tuple[Task, str], PurePosixPath] = {}
    problems = []
    for name in names:
        label = _as_label(name)
        if label is None:
            continue
        if name.suffix.lower() not in LABEL_SUFFIXES[label[0]]:
            if name.suffix.lower() in (*SUFFIXES, ".npy"):
                allowed = " or ".join(LABEL_SUFFIXES[label[0]])
                problems.append(f"{root / name}: a label of {label[0]} is a {allowed} file; convert it or rename it")
            continue
        if label in taken:
            problems.append(f"{root / name}: the same label as {taken[label]}; keep one of them")
        taken[label] = name
        found[name] = label
    return found, problems


def _as_label(name: PurePosixPath) -> tuple[Task, str] | None:
    """`x/NAME.normal.png`, `x/normal/NAME.png` and `normal/x/NAME.png` are the normals of the image `x/NAME`."""
    for position, folder in enumerate(name.parts[:-1]):
        if folder in LABEL_NAMES:
            rest = PurePosixPath(*name.parts[:position], *name.parts[position + 1 :])
            return LABEL_NAMES[folder], _stem(rest)
    stem, _, word = name.stem.rpartition(".")
    return (LABEL_NAMES[word], str(name.with_name(stem))) if stem and word in LABEL_NAMES else None


def _clashes(root: Path, by_stem: Mapping[str, list[PurePosixPath]]) -> list[str]:
    return [
        f"{root / files[0]}: shares its name, by which labels and captions go, with {', '.join(map(str, files[1:]))}; "
        "rename one"
        for files in by_stem.values()
        if len(files) > 1
    ]


def _header(path: Path) -> tuple[str, tuple[int, int]] | str:
    """(digest, (height, width) as shown), or what is wrong with the file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            # The base class's: that of PNG would decode the whole file. Of a TIFF, Pillow has turned the size already.
            orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
            turned = orientation in (5, 6, 7, 8) and image.format != "TIFF"
    except Image.DecompressionBombError:
        return _too_large(path)
    except BROKEN as error:
        return f"{path}: not a readable image ({_short(error)}); replace it, or take it out of the folder"
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        return _too_large(path)
    return _sha256(path), (width, height) if turned else (height, width)


def _too_large(path: Path) -> str:
    return f"{path}: more than {(Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels; scale it down"


def _short(error: BaseException) -> str:
    """Pillow names the whole path again, sometimes as a stream's address."""
    return str(error).split(" '/")[0].split(" <_io")[0] or type(error).__name__


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return sha256_stream(stream)


# ---------------------------------------------------------------------------------- captions
def _captions(
    root: Path, names: Iterable[PurePosixPath], by_stem: Mapping[str, list[PurePosixPath]]
) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """(keyword, prompt) of every image, by stem: of metadata.jsonl, else of NAME.txt, else of the folder's name."""
    told: dict[str, dict[str, str]] = {}
    problems: list[str] = []
    for name in names:
        if name.name == METADATA:
            entries, more = _metadata(root, name)
            problems += more
            known = {str(file): stem for stem, files in by_stem.items() for file in files}
            for file, entry in entries.items():
                if file in known:
                    told[known[file]] = entry
                else:
                    problems.append(f"{root / name}: names {file}, which is no image of this folder; correct file_name")
        elif _is_caption(name, by_stem):
            try:
                told.setdefault(_stem(name), {"prompt": (root / name).read_text(encoding="utf-8")})
            except UnicodeDecodeError:
                problems.append(f"{root / name}: not UTF-8 text; save the caption as UTF-8")
    found = {}
    for stem in by_stem:
        entry = told.get(stem, {})
        found[stem] = _plain(entry.get("keyword", "")) or _folder_name(root, stem), _plain(entry.get("prompt", ""))
    return found, problems


def _is_caption(name: PurePosixPath, by_stem: Mapping[str, Any]) -> bool:
    return name.suffix.lower() == ".txt" and _stem(name) in by_stem


def _plain(text: str) -> str:
    return " ".join(text.split())


def _folder_name(root: Path, stem: str) -> str:
    parent = PurePosixPath(stem).parent.name
    return parent or (root.parent.name if root.name in SPLIT_FOLDERS else root.name)


def _metadata(root: Path, name: PurePosixPath) -> tuple[dict[str, dict[str, str]], list[str]]:
    """file → keyword and prompt, as one metadata.jsonl tells them (Hugging Face's ImageFolder), and its faults."""
    entries: dict[str, dict[str, str]] = {}
    problems = []
    try:
        lines = (root / name).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return {}, [f"{root / name}: not UTF-8 text; save it as UTF-8"]
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                file, entry = _entry(line)
            except ValueError as error:
                problems.append(f"{root / name}, line {number}: {error}")
                continue
            entries[os.path.normpath(str(name.parent / file))] = entry
    return entries, problems


def _entry(line: str) -> tuple[str, dict[str, str]]:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg}); write one object a line") from None
    if not isinstance(values, dict) or not isinstance(values.get("file_name"), str):
        raise ValueError('write an object with a file_name, e.g. {"file_name": "a.jpg", "text": "a red chair"}')
    entry: dict[str, str] = {}
    for name in ("keyword", *_CAPTIONS):
        value = values.get(name)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name}: expected text, found {value!r}")
        if value:
            entry.setdefault("prompt" if name in _CAPTIONS else name, value)
    return values["file_name"], entry
