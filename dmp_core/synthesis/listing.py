"""Lists your own folder: images, captions and labels, each with its digest.

Reads names, headers and digests, no pixels; `checking.check_folder` does that. Naming: `docs/own_images.md`.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import reprlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from dmp_core.errors import InputError
from dmp_core.images import decoding, opened, orientation
from dmp_core.modalities import Modality, find_modality, modality_names
from dmp_core.overlap import in_threads
from dmp_core.reading import is_utf8, read_text, regular_size, shown
from dmp_core.store import canonical_json, sample_key, sample_seed
from dmp_core.store.fingerprint import sha256_file
from dmp_core.synthesis.checking import pixel_faults
from dmp_core.synthesis.own_images import SUFFIXES, UNKNOWN_SIZE, LabelFile, Listing, OwnImage, refuse

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SPLIT_FOLDERS = ("train", "in_domain", "out_of_domain", "arbitrary")
METADATA = "metadata.jsonl"
_CAPTIONS = ("prompt", "text", "caption")
_LONGEST_CAPTION = 2**20
# Nested links: a few that point at each other would make an endless tree.
_MOST_LINKS = 8


def read_folder(
    folder: str | Path,
    share: tuple[float, float] = (0.0, 1.0),
    count: int | None = None,
    *,
    keeps_broken: bool = False,
    modalities: Sequence[Modality] | None = None,
) -> Listing:
    """List a folder with its sub-folders; files are read again only when their size or time has changed.

    share, count: see `SplitConfig`.
    keeps_broken: list images whose header cannot be read as well; `check_folder` finds them among those to skip.
    modalities: those that label files may have; None: the built-in ones.
    Raises one InputError with a line for every unusable file, and the fix.
    """
    if not is_utf8(str(folder)):
        raise InputError(f"{shown(folder)}: the folder's name is not UTF-8; rename it")
    try:
        root = Path(folder).expanduser().resolve()
        there = root.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a too long name, no such user
        raise InputError(f"{shown(folder)}: cannot be read ({error})") from None
    if not there:
        raise InputError(f"{shown(folder)}: no such folder; give one that holds {_accepted()} files")
    known = map(find_modality, modality_names()) if modalities is None else modalities
    whole = _scan(root, _walk(root), keeps_broken, tuple(known))
    return replace(whole, images=_part(whole, share)[:count])


def image_names(folder: Path, modalities: Sequence[Modality], *, below: bool = True) -> list[str]:
    """Sorted names of a folder's images: neither labels of other images, nor predictions; reads no file.

    below: also in its folders. Raises InputError if a folder cannot be listed.
    """
    tree = _walk(folder)
    if tree.problems:
        refuse(list(tree.problems))
    words = _label_words(modalities)
    files = [PurePosixPath(name) for name, _, _ in tree.files if below or "/" not in name]
    names = [
        name for name in files
        if name.suffix.lower() in SUFFIXES and not _prediction(tuple(words)).fullmatch(name.name)
    ]  # fmt: skip
    stems = {_stem(name) for name in names}
    labels = ((name, _as_label(name, words)) for name in names)
    return [str(name) for name, label in labels if label is None or label.stem not in stems]


def read_folders(
    asked: Mapping[str, tuple[str, tuple[float, float]]],
    *,
    keeps_broken: bool = False,
    modalities: Sequence[Modality] | None = None,
) -> dict[str, Listing]:
    """Several folders, each with its share, by the names of their splits. Raises one InputError for all of them."""
    found, problems = {}, []
    for name, (folder, share) in asked.items():
        try:
            found[name] = read_folder(folder, share, keeps_broken=keeps_broken, modalities=modalities)
        except InputError as error:
            problems += str(error).split("\n")
    refuse(dict.fromkeys(problems))
    return found


def prompts_table(listing: Listing, split: str, seed: int) -> pd.DataFrame:
    """The listing as the prompts table of its split, with the additional columns file, sha256 and labels (JSON)."""
    import pandas as pd

    keys = [sample_key(split, index) for index in range(len(listing.images))]
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
            "labels": [_labels_of(image) for image in listing.images],
        }
    )


def _labels_of(image: OwnImage) -> str:
    return canonical_json({x.modality.name: {"file": x.file, "sha256": x.sha256} for x in image.labels})


def _part(listing: Listing, share: tuple[float, float]) -> tuple[OwnImage, ...]:
    """The images of a share; equal files have equal rank, so that they are never in two parts."""
    ranked = sorted({image.sha256 for image in listing.images})
    chosen = {digest for rank, digest in enumerate(ranked) if share[0] <= rank / len(ranked) < share[1]}
    if not chosen:
        raise InputError(f"{listing.root}: no image falls into the share {share[0]:g} to {share[1]:g}; give it more")
    return tuple(image for image in listing.images if image.sha256 in chosen)


def _accepted() -> str:
    return "PNG, JPEG, WebP, BMP or TIFF"


# ------------------------------------------------------------------------------------ the files
@dataclass(frozen=True)
class _Tree:
    files: tuple[tuple[str, int, int], ...]
    """(name, bytes, time) of every file that is not hidden, sorted."""
    loops: tuple[str, ...]
    """Links that lead back to a folder above them."""
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Folder:
    path: str
    above: frozenset[tuple[int, int]]
    """Device and inode of the folder and of all above it."""
    links: int = 0
    """How many links lead to it."""


def _walk(root: Path) -> _Tree:
    """All files below the folder, also behind links. A folder that cannot be listed is a problem, never ignored."""
    files: list[tuple[str, int, int]] = []
    loops, problems = [], []
    pending = [_Folder(str(root), frozenset([_identity(root)]))]
    while pending:
        folder = pending.pop()
        try:
            entries = [entry for entry in os.scandir(folder.path) if not entry.name.startswith(".")]
            for entry in entries:
                name = os.path.relpath(entry.path, root).replace(os.sep, "/")
                if not _is_folder(entry):
                    files.append((name, *_size_and_time(entry.path)))
                elif not entry.name.startswith("__"):
                    below = _below(folder, entry)
                    pending += [below] if below else []
                    loops += [] if below else [name]
        except OSError as error:
            reason = f"cannot be listed ({error.strerror}); give yourself the right to read it, or take it away"
            problems.append(f"{shown(folder.path)}: {reason}")
    return _Tree(tuple(sorted(files)), tuple(sorted(loops)), tuple(problems))


def _identity(path: str | Path) -> tuple[int, int]:
    entry = os.stat(path)
    return entry.st_dev, entry.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a broken link, or one to itself: a file that cannot be read
        return False


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        entry = os.stat(path)
    except OSError:
        entry = os.lstat(path)
    return entry.st_size, entry.st_mtime_ns


def _below(folder: _Folder, entry: os.DirEntry[str]) -> _Folder | None:
    """None for a link that leads back, or is nested too deeply."""
    identity, links = _identity(entry.path), folder.links + entry.is_symlink()
    if identity in folder.above or links > _MOST_LINKS:
        return None
    return _Folder(entry.path, folder.above | {identity}, links)


@lru_cache(maxsize=16)
def _scan(root: Path, tree: _Tree, keeps_broken: bool, modalities: tuple[Modality, ...]) -> Listing:
    """The whole folder; sizes and times in `tree` are only the cache's key."""
    decodable = (PurePosixPath(name) for name, _, _ in tree.files if is_utf8(name))
    words = _label_words(modalities)
    names = [name for name in decodable if not _prediction(tuple(words)).fullmatch(name.name)]
    problems = [*tree.problems, *_undecodable(root, tree)]
    labels, more = _labels(root, names, words)
    images = [name for name in names if name not in labels and name.suffix.lower() in SUFFIXES]
    if not images and not problems + more:
        raise InputError(f"{shown(root)}: no image in it; put {_accepted()} files there")
    by_stem: dict[str, list[PurePosixPath]] = {}
    for image in images:
        by_stem.setdefault(_stem(image), []).append(image)
    stems = _finder(by_stem)
    beside, lost = _matched(root, labels, stems)
    captions, faults = _captions(root, names, by_stem, stems)
    problems += [*more, *lost, *faults, *_clashes(root, by_stem)]
    _warn_of_misspelt(root, names, labels, words, by_stem)
    headers = dict(zip(images, in_threads(lambda name: _header(root / name), images), strict=True))
    digests = dict(zip(labels, in_threads(lambda name: _digest(root / name), labels), strict=True))
    listed = []
    sizes: dict[tuple[int, int], tuple[int, int]] = {}  # one object for all images of a size
    for name, header in headers.items():
        keyword, prompt = captions.entries[_stem(name)]
        files = beside.get(_stem(name), {})
        given = tuple(LabelFile(modality, str(file), digests[file].sha256) for modality, file in files.items())
        listed.append(
            OwnImage(str(name), header.sha256, sizes.setdefault(header.size, header.size), keyword, prompt, given)
        )
    kept = keeps_broken and {name for name, header in headers.items() if header.sha256}
    files_read = [header for name, header in headers.items() if not kept or name not in kept] + [*digests.values()]
    problems += [found.problem for found in files_read if found.problem]
    _refuse_all(root, problems, listed)
    known = {*images, *labels, *captions.files}
    ignored = (f"{name} (leads back to a folder above it)" for name in tree.loops)
    others = (shown(name) for name, _, _ in tree.files if not is_utf8(name) or PurePosixPath(name) not in known)
    return Listing(root, tuple(listed), (*map(shown, ignored), *others))


def _refuse_all(root: Path, problems: list[str], images: list[OwnImage]) -> None:
    """If names or headers have problems, add those of the pixels: one list for the user."""
    if problems:
        named = {problem.partition(": ")[0] for problem in problems}
        more = (fault for fault in pixel_faults(root, images) if fault.partition(": ")[0] not in named)
        refuse(sorted({*problems, *more}))


def _undecodable(root: Path, tree: _Tree) -> list[str]:
    return [
        f"{shown(root / name)}: its name is not UTF-8; rename it"
        for name, _, _ in tree.files
        if not is_utf8(name) and PurePosixPath(name).suffix.lower() in (*SUFFIXES, ".npy", ".txt")
    ]


def _finder(names: Iterable[str]) -> Callable[[str], str | None]:
    """Finds a name as written, else one with the same text in another Unicode form (`é` as one or two characters)."""
    exact = set(names)
    composed: dict[str, list[str]] = {}
    for name in exact:
        composed.setdefault(unicodedata.normalize("NFC", name), []).append(name)

    def find(wanted: str) -> str | None:
        if wanted in exact:
            return wanted
        alike = composed.get(unicodedata.normalize("NFC", wanted), [])
        return alike[0] if len(alike) == 1 else None

    return find


def _stem(name: PurePosixPath) -> str:
    return str(name.with_suffix(""))


def _label_words(modalities: Iterable[Modality]) -> dict[str, Modality]:
    """Names that a label's folder, or the word before its suffix, may have."""
    modalities = list(modalities)
    return {one.word: one for one in modalities} | {one.name: one for one in modalities}


@cache
def _prediction(words: tuple[str, ...]) -> re.Pattern[str]:
    """Pattern of files that `dmp predict` writes, perhaps next to the images: neither image nor label."""
    return re.compile(
        rf".*\.(?:{'|'.join(map(re.escape, words))})(?:\.uncertainty)?\.(?:pred|view)\.(?:png|npy)", re.DOTALL
    )


@dataclass(frozen=True)
class _Label:
    """A label file, from its name."""

    modality: Modality
    stem: str
    """Of its image."""
    folder: str | None = None
    """The folder whose name makes it a label, if its own name does not."""


def _labels(
    root: Path, names: Iterable[PurePosixPath], words: Mapping[str, Modality]
) -> tuple[dict[PurePosixPath, _Label], list[str]]:
    """The label files, and the problems of files with a label's name but a wrong suffix."""
    found: dict[PurePosixPath, _Label] = {}
    problems = []
    for name in names:
        label = _as_label(name, words)
        if label is None:
            continue
        suffixes = label.modality.suffixes
        if name.suffix.lower() in suffixes:
            found[name] = label
        elif name.suffix.lower() in (*SUFFIXES, ".npy"):
            allowed = " or ".join(suffixes)
            hint = f"; if it is an image, rename the folder {label.folder}" if label.folder else ""
            problems.append(
                f"{shown(root / name)}: a label of {label.modality.name} is a {allowed} file; "
                f"convert it or rename it{hint}"
            )
    return found, problems


def _as_label(name: PurePosixPath, words: Mapping[str, Modality]) -> _Label | None:
    """`x/NAME.normal.png`, `x/normal/NAME.png` and `normal/x/NAME.png` are the normals of the image `x/NAME`."""
    for position, folder in enumerate(name.parts[:-1]):
        if folder in words:
            rest = PurePosixPath(*name.parts[:position], *name.parts[position + 1 :])
            return _Label(words[folder], _stem(rest), "/".join(name.parts[: position + 1]))
    stem, _, word = name.stem.rpartition(".")
    return _Label(words[word], str(name.with_name(stem))) if stem and word in words else None


def _matched(
    root: Path, labels: Mapping[PurePosixPath, _Label], stems: Callable[[str], str | None]
) -> tuple[dict[str, dict[Modality, PurePosixPath]], list[str]]:
    """Stem of an image → its labels; and the problems: labels without an image, and second labels."""
    beside: dict[str, dict[Modality, PurePosixPath]] = {}
    problems = []
    used = {label.folder for label in labels.values() if stems(label.stem) is not None}
    strangers = {
        label.folder: label.modality.name
        for label in labels.values()
        if label.folder is not None and label.folder not in used
    }
    for name, label in labels.items():
        image = stems(label.stem)
        if image is not None:
            first = beside.setdefault(image, {}).setdefault(label.modality, name)
            if first != name:
                problems.append(f"{shown(root / name)}: the same label as {shown(first)}; keep one of them")
        elif label.folder not in strangers:
            missing = f"there is no {shown(label.stem)}.jpg, .png … next to it"
            problems.append(f"{shown(root / name)}: a label without an image; {missing}")
    problems += [
        f"{shown(root / folder)}: by its name, a folder of {modality} labels, but no "
        "image is called like one of its files; if these are images themselves, call the folder something else"
        for folder, modality in strangers.items()
    ]
    return beside, problems


def _warn_of_misspelt(
    root: Path,
    names: Iterable[PurePosixPath],
    labels: Mapping[PurePosixPath, _Label],
    words: Mapping[str, Modality],
    by_stem: Mapping[str, list[PurePosixPath]],
) -> None:
    """Of files next to an image whose names are nearly those of its labels: `NAME.nromal.png`, `NAME_normal.png`."""
    for name in names:
        parts = re.fullmatch(r"(.+)[._-]([^._-]+)", name.stem)
        if name in labels or parts is None or name.suffix.lower() not in (*SUFFIXES, ".npy"):
            continue
        stem, word = parts.groups()
        near = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.75)
        if near and str(name.with_name(stem)) in by_stem:
            right = name.with_name(f"{stem}.{near[0]}{name.suffix}")
            log.warning("%s: not read as a label; if it is one, call it %s", shown(root / name), shown(right.name))


def _clashes(root: Path, by_stem: Mapping[str, list[PurePosixPath]]) -> list[str]:
    return [
        f"{shown(root / files[0])}: shares its name, by which labels and captions go, with "
        f"{shown(', '.join(map(str, files[1:])))}; rename one"
        for files in by_stem.values()
        if len(files) > 1
    ]


@dataclass(frozen=True, slots=True)
class _Checked:
    """A file's digest and, for an image, its (height, width) as shown; or its problem."""

    sha256: str = ""
    size: tuple[int, int] = UNKNOWN_SIZE
    problem: str = ""


def _header(path: Path) -> _Checked:
    fix = "replace it, or take it out of the folder"
    try:
        regular_size(path)
        with path.open("rb") as stream, decoding(path, "not a readable image", fix), opened(stream) as image:
            # Pillow has already rotated the size of a TIFF.
            turned = orientation(image) in (5, 6, 7, 8) and image.format != "TIFF"
            size = image.size if turned else image.size[::-1]
    except InputError as error:
        digest = _digest(path)
        return digest if digest.problem else replace(digest, problem=str(error))
    except OSError as error:
        return _Checked(problem=f"{shown(path)}: cannot be read ({error.strerror})")
    return replace(_digest(path), size=size)


def _digest(path: Path) -> _Checked:
    try:
        regular_size(path)
        return _Checked(sha256_file(path))
    except InputError as error:
        return _Checked(problem=str(error))
    except OSError as error:
        return _Checked(problem=f"{shown(path)}: cannot be read ({error.strerror})")


# ---------------------------------------------------------------------------------- captions
@dataclass
class _Captions:
    entries: dict[str, tuple[str, str]] = field(default_factory=dict)
    """(keyword, prompt) of every image, by stem."""
    files: set[PurePosixPath] = field(default_factory=set)
    """The files that were read for them."""


def _captions(
    root: Path,
    names: Iterable[PurePosixPath],
    by_stem: Mapping[str, list[PurePosixPath]],
    stems: Callable[[str], str | None],
) -> tuple[_Captions, list[str]]:
    """Keyword and prompt of every image: from metadata.jsonl, else from NAME.txt, else from the folder's name."""
    found = _Captions()
    problems: list[str] = []
    stem_of = {str(file): stem for stem, files in by_stem.items() for file in files}
    files = _finder(stem_of)
    listed: dict[str, tuple[str, dict[str, str]]] = {}
    written: dict[str, str] = {}
    for name in names:
        try:
            if name.name == METADATA:
                found.files.add(name)
                problems += _read_metadata(
                    root, name, lambda file: stem_of[real] if (real := files(file)) else None, listed
                )
            elif name.suffix.lower() == ".txt" and (stem := stems(_stem(name))) is not None:
                found.files.add(name)
                text = read_text(root / name, _LONGEST_CAPTION)
                if stem in written:
                    raise InputError(f"{shown(root / name)}: a second caption of {shown(by_stem[stem][0])}; keep one")
                written[stem] = text
        except InputError as error:
            problems.append(str(error))
    for stem in by_stem:
        entry = listed[stem][1] if stem in listed else {"prompt": written.get(stem, "")}
        keyword = _plain(entry.get("keyword", "")) or _folder_name(root, stem)
        found.entries[stem] = keyword, _plain(entry.get("prompt", ""))
    return found, problems


def _plain(text: str) -> str:
    return " ".join(text.split())


def _folder_name(root: Path, stem: str) -> str:
    parent = PurePosixPath(stem).parent.name
    return parent or (root.parent.name if root.name in SPLIT_FOLDERS else root.name)


def _read_metadata(
    root: Path,
    name: PurePosixPath,
    find: Callable[[str], str | None],
    listed: dict[str, tuple[str, dict[str, str]]],
) -> Iterator[str]:
    """Add the lines of one metadata.jsonl (Hugging Face's ImageFolder) to `listed`; yields its faults.

    listed: stem of the image → place and content of its line.
    """
    for number, line in enumerate(re.split("\r\n|\n|\r", read_text(root / name)), 1):  # JSON may hold other breaks
        if not line.strip():
            continue
        place = f"{shown(root / name)}, line {number}"
        try:
            file, entry = _entry(line)
        except ValueError as error:
            yield f"{place}: {error}"
            continue
        paths = (os.path.normpath(str(name.parent / path)) for path in (file, file.replace("\\", "/")))
        stem = next((stem for path in paths if (stem := find(path)) is not None), None)
        if stem is None:
            yield f"{place}: names {shown(file)}, which is no image of this folder; correct file_name"
        elif stem in listed:
            yield f"{place}: {shown(file)} again, after {listed[stem][0]}; keep one of the lines"
        else:
            listed[stem] = place, entry


def _entry(line: str) -> tuple[str, dict[str, str]]:
    try:
        values = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply; write one flat object per line") from None
    except ValueError as error:
        raise ValueError(f"not JSON ({getattr(error, 'msg', error)}); write one object per line") from None
    if not isinstance(values, dict) or not isinstance(values.get("file_name"), str):
        raise ValueError('write an object with a file_name, e.g. {"file_name": "a.jpg", "text": "a red chair"}')
    entry: dict[str, str] = {}
    for name in ("keyword", *_CAPTIONS):
        value = values.get(name)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name}: expected text, found {reprlib.repr(value)}")
        if value and not is_utf8(value):
            raise ValueError(f"{name}: holds half of a surrogate pair (\\ud800 to \\udfff); write the whole character")
        if value:
            entry.setdefault("prompt" if name in _CAPTIONS else name, value)
    return values["file_name"], entry
