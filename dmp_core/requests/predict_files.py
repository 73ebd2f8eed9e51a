"""`dmp predict`: your own image files, their results' names, what is skipped, and which files may be overwritten."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np

from dmp_core.errors import InputError
from dmp_core.images import check_image, open_rgb
from dmp_core.modalities import Modality
from dmp_core.modalities.files import npy_bytes, png_bytes, quick_png
from dmp_core.modalities.pictures import apply_map
from dmp_core.modalities.scalar import ScalarMap
from dmp_core.progress import Progress, silent
from dmp_core.reading import read_text, shown
from dmp_core.requests.predictor import Prediction, Predictor, Target
from dmp_core.stages.base import base_hash, decoder_of
from dmp_core.store import Sample, SkipCount, Skipped, canonical_json, sha256_file, sha256_folder
from dmp_core.store.attempts import SAMPLE_ERRORS, batch_or_each
from dmp_core.synthesis.listing import image_names
from dmp_core.synthesis.own_images import SUFFIXES
from dmp_core.weights.adapters import adapter_folder

INDEX = ".dmp_predict.jsonl"
"""Names and digests of all files written to a folder, one object per line, each before its file."""
_START = b'{"file"'
_LONGEST_CAPTION = 2**16  # bytes
_AHEAD = 4
"""Images that are read, and results that are encoded, while the networks work on others."""

Item = TypeVar("Item")
Made = TypeVar("Made")
Files = dict[str, Path]
"""Role (`label`, `png16`, `view`, `uncertainty`, `uncertainty_view`) → file."""


@dataclass(frozen=True)
class Result:
    """The files of one modality of one image."""

    image: Path
    modality: str
    files: Files
    made: bool
    """False: they were there, made from the same image in the same way."""


@dataclass(frozen=True)
class _Job:
    """One image, and what is to be predicted of it."""

    image: Path
    files: dict[str, Files]
    """Modality → its results."""
    origins: dict[str, str]
    """Modality → digest of all that its results depend on."""
    todo: tuple[Target, ...]


def predict_files(
    images: Sequence[str | Path],
    predictor: Predictor,
    out: Path,
    *,
    batch_size: int = 1,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Iterator[Result]:
    """Predict image files; yields the results that are already there, then those that are made, image by image.

    Writes `NAME.normal.pred.png` (the dataset's encoding) and `NAME.normal.view.png` (to look at); labels never have
    such names. Of scalar maps in .npy also `NAME.depth.pred.png`, of 16 bits, which states its unit.
    images: files, folders (with all folders in them) and patterns of names.
    batch_size: images of one size that the networks take at once. With 1, a result depends on its own image only;
        with more, on the others by rounding.
    overwrite: make results again that are already there.
    Raises InputError, before any work, if two images share a name, or if it would overwrite a file that this command
    did not write; and for an image that fails, unless `runtime.on_bad_sample` allows to skip it.
    """
    bounds = predictor.targets[0].config.runtime.on_bad_sample.bounds
    # Labels and results of modalities that are not predicted now are no images either.
    known = {modality.name: modality for target in predictor.targets for modality in target.config.known}
    found = find_images(images, out, list(known.values()))
    for image in found if bounds is None else ():
        check_image(image)
    written, jobs = _jobs(found, predictor, out, overwrite)
    total = len(jobs) * len(predictor.targets)
    done = 0
    for job in jobs:
        missing = {target.modality.name for target in job.todo}
        for name in (name for name in job.files if name not in missing):
            done += 1
            yield Result(job.image, name, job.files[name], made=False)
    todo = [job for job in jobs if job.todo]
    if not todo:
        return
    predictor.load()  # errors here are not about an image
    count = None if bounds is None else SkipCount("dmp predict", len(jobs), bounds)
    with ThreadPoolExecutor() as pool:
        read = in_background(todo, partial(_read, skips=count is not None), pool)
        samples = _predicted(read, predictor, batch_size, skips=count is not None)
        for sample in in_background(samples, _encoded, pool):
            if isinstance(sample, Skipped):
                assert count is not None
                count.bad(sample)
                continue
            if count is not None:
                count.good()
            job = sample["job"]
            for name, contents in sample["contents"].items():
                for role, data in contents.items():
                    written.write(job.files[name][role], data, job.origins[name])
                done += 1
                progress(done, total)
                yield Result(job.image, name, job.files[name], made=True)


def in_background(items: Iterable[Item], make: Callable[[Item], Made], pool: Executor) -> Iterator[Made]:
    """What `make` returns for each item, in order, a few items ahead; `items` are drawn in the caller's thread."""
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(pool.submit(make, item))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


# ------------------------------------------------------------------------------------- images
def find_images(named: Sequence[str | Path], out: Path, modalities: Sequence[Modality]) -> dict[Path, Path]:
    """Image → the stem of its results: its own, or its path below the folder that was named.

    named: files, folders and patterns (`*`, `?`, `[…]`, `**`); what exists is no pattern.
    out: results in it are no images, wherever it is. Raises InputError for a folder or pattern without an image.
    """
    found: dict[str, tuple[Path, Path]] = {}
    for one in named:
        if not str(one).strip() or re.match(r"https?://", str(one)):
            raise InputError(f"{shown(str(one)) or 'an empty name'}: give files or folders of this machine")
        place = Path(one)
        if place.is_dir():
            each = _in_folder(place, out, modalities)
        elif os.path.lexists(place) or not glob.has_magic(str(one)):
            each = [(place, Path(place.stem))]
        else:
            each = _of_pattern(str(one), out, modalities)
        if not each:
            raise InputError(f"{shown(one)}: no image there; give PNG, JPEG, WebP, BMP or TIFF files")
        for image, stem in each:
            found.setdefault(os.path.abspath(image), (image, stem))
    return dict(found.values())


def _in_folder(folder: Path, out: Path, modalities: Sequence[Modality]) -> list[tuple[Path, Path]]:
    results = None if out.resolve() == folder.resolve() else out.resolve()
    names = image_names(folder, modalities)
    return [
        (folder / name, Path(name).with_suffix(""))
        for name in names
        if results is None or results not in (folder / name).resolve().parents
    ]


def _of_pattern(pattern: str, out: Path, modalities: Sequence[Modality]) -> list[tuple[Path, Path]]:
    found: list[tuple[Path, Path]] = []
    for name in sorted(glob.glob(pattern, recursive=True)):
        place = Path(name)
        if not place.is_dir() and place.suffix.lower() in SUFFIXES:
            siblings = {str(place.parent / other) for other in image_names(place.parent, modalities, below=False)}
            found += [(place, Path(place.stem))] if str(place) in siblings else []
    return found


def _jobs(found: dict[Path, Path], predictor: Predictor, out: Path, overwrite: bool) -> tuple[Written, list[_Job]]:
    """Raises InputError if two images share a name, or a file there is not ours."""
    stems = _stems(found)
    files = {
        image: {target.modality.name: _files(out, stem, target, predictor) for target in predictor.targets}
        for image, stem in stems.items()
    }
    written = Written(out, [file for of in files.values() for roles in of.values() for file in roles.values()])
    settings = {target.modality.name: _settings_digest(target, predictor) for target in predictor.targets}
    captioned = any(target.config.sampling.use_prompt for target in predictor.targets)
    jobs = []
    for image, roles in files.items():
        content = _content_digest(image, captioned)
        origins = {name: _digest([content, digest]) for name, digest in settings.items()}
        todo = [
            target
            for target in predictor.targets
            for name in (target.modality.name,)
            if overwrite or not written.has(roles[name].values(), origins[name])
        ]
        jobs.append(_Job(image, roles, origins, tuple(todo)))
    return written, jobs


def _settings_digest(target: Target, predictor: Predictor) -> str:
    """Of all that a result depends on, besides the image."""
    adapter, config = adapter_folder(target.adapter), target.config
    sampling = config.sampling.for_modality(target.modality).model_dump(mode="json", exclude={"batch_size"})
    return _digest(
        {
            "version": 1,
            "modality": [target.modality.name, dict(target.modality.description)],
            "adapter": sha256_folder(adapter) if adapter.is_dir() else sha256_file(adapter),
            "base": base_hash(config),
            **decoder_of(config),
            "sampling": sampling,
            "code": asdict(config.latents.code),
            "manner": asdict(predictor.manner) | {"resolution": predictor.manner.resolution(target)},
        }
    )


def _content_digest(image: Path, captioned: bool) -> str:
    """Of the image file, and of its caption; empty if it cannot be read, which is reported when it is."""
    files = [image, image.with_suffix(".txt")] if captioned else [image]
    return _digest([sha256_file(file) if file.is_file() else "" for file in files])


def _digest(content: Any) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


# --------------------------------------------------------------------------------- prediction
def _read(job: _Job, skips: bool) -> Sample | Skipped:
    try:
        sample: Sample = {"__key__": shown(job.image), "job": job, "rgb": open_rgb(job.image, job.image)}
        if any(target.config.sampling.use_prompt for target in job.todo):
            sample["caption"] = _caption(job.image)
    except SAMPLE_ERRORS as error:
        if not skips:
            raise
        return Skipped.of(shown(job.image), error)
    return sample


def _predicted(
    read: Iterable[Sample | Skipped], predictor: Predictor, size: int, *, skips: bool
) -> Iterator[Sample | Skipped]:
    def predicted(batch: Sequence[Sample]) -> list[Sample]:
        names = [sample["__key__"] for sample in batch]
        captions = [sample["caption"] for sample in batch if "caption" in sample] or None
        try:
            rows = predictor.predict(
                np.stack([sample["rgb"] for sample in batch]), names, captions, batch[0]["job"].todo
            )
        except InputError as error:
            if any(str(error).startswith(name) for name in names):
                raise
            raise InputError(f"{' or '.join(names)}: {error}") from None
        return [sample | {"predictions": row} for sample, row in zip(batch, rows, strict=True)]

    for batch in _alike(read, size):
        if isinstance(batch, Skipped):
            yield batch
        else:
            yield from batch_or_each(batch, [sample["__key__"] for sample in batch], predicted, skips=skips)


def _alike(read: Iterable[Sample | Skipped], size: int) -> Iterator[list[Sample] | Skipped]:
    """Batches of consecutive images of one size with the same things to predict."""
    batch: list[Sample] = []
    for sample in read:
        full = len(batch) == size
        if batch and (full or isinstance(sample, Skipped) or _kind(sample) != _kind(batch[0])):
            yield batch
            batch = []
        if isinstance(sample, Skipped):
            yield sample
        else:
            batch.append(sample)
    if batch:
        yield batch


def _kind(sample: Sample) -> tuple[Any, ...]:
    return sample["rgb"].shape, sample["job"].todo


def _caption(image: Path) -> str:
    """What `NAME.txt` next to the image says."""
    file = image.with_suffix(".txt")
    if not file.is_file():
        raise InputError(
            f"{shown(file)}: missing, and sampling.use_prompt needs the caption of {shown(image)} there; write it, or "
            "set sampling.use_prompt=false"
        )
    return " ".join(read_text(file, _LONGEST_CAPTION).split())


# ----------------------------------------------------------------------------------- contents
def _encoded(sample: Sample | Skipped) -> Sample | Skipped:
    """The bytes of the files of an image's predictions."""
    if isinstance(sample, Skipped):
        return sample
    contents = {one.target.modality.name: _contents(one) for one in sample["predictions"]}
    return {"__key__": sample["__key__"], "job": sample["job"], "contents": contents}


def _contents(prediction: Prediction) -> dict[str, bytes]:
    """Role → bytes."""
    modality, apart = prediction.target.modality, prediction.uncertainty
    with quick_png():
        found = {"label": modality.encode(prediction.label), "view": png_bytes(modality.colourise(prediction.label))}
        if _has_png16(modality):
            found["png16"] = modality.png16(prediction.label)
        if apart is not None:
            view = png_bytes(apply_map(apart / modality.error_scale.maximum, "magma"))
            found |= {"uncertainty": npy_bytes(apart.astype(np.float16)), "uncertainty_view": view}
    return found


def _has_png16(modality: Modality) -> TypeGuard[ScalarMap]:
    return isinstance(modality, ScalarMap) and not modality.is_png


# -------------------------------------------------------------------------------------- names
def _stems(found: dict[Path, Path]) -> dict[Path, Path]:
    """Stem of each image's results; if names clash, its path below the images' common folder."""
    stems = dict(found)
    if clash(stems.values()):
        common = os.path.commonpath([os.path.abspath(image.parent) for image in stems])
        stems = {image: Path(os.path.relpath(os.path.abspath(image), common)).with_suffix("") for image in stems}
    if twins := clash(stems.values()):
        same = [str(image) for image, stem in stems.items() if _folded(stem) == twins]
        raise InputError(f"{' and '.join(same)}: their results would have one name; predict them apart, or rename one")
    return stems


def _files(out: Path, stem: Path, target: Target, predictor: Predictor) -> Files:
    modality = target.modality
    word, _, suffix = modality.member.partition(".")

    def file(end: str) -> Path:
        return out / stem.with_name(f"{stem.name}.{end}")

    files = {"label": file(f"{word}.pred.{suffix}"), "view": file(f"{modality.name}.view.png")}
    if _has_png16(modality):
        files["png16"] = file(f"{word}.pred.png")
    if predictor.manner.uncertainty:
        files["uncertainty"] = file(f"{modality.name}.uncertainty.pred.npy")
        files["uncertainty_view"] = file(f"{modality.name}.uncertainty.view.png")
    return files


def clash(stems: Iterable[Path]) -> str | None:
    """A name that occurs several times on a file system that ignores case and Unicode's forms."""
    name, count = Counter(map(_folded, stems)).most_common(1)[0]
    return name if count > 1 else None


def _folded(stem: Path) -> str:
    return unicodedata.normalize("NFC", str(stem)).casefold()


# -------------------------------------------------------------------------------------- files
class Written:
    """A folder for results in which only files that this command wrote are replaced."""

    def __init__(self, folder: Path, files: Iterable[Path]) -> None:
        """files: the ones to be written. Raises InputError if one exists that this command did not write."""
        self.folder, self.index = folder, folder / INDEX
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not existing.is_dir():
            raise InputError(f"--out {folder}: {existing} is a file; choose a folder")
        self._origins: dict[Path, str] = {}
        known = self._known()
        for file in files:
            if not os.path.lexists(file):
                continue
            origin = known.get(self._name(file), {}).get(self._digest(file) or "")
            if origin is not None:
                self._origins[file] = origin
            else:
                raise InputError(
                    f"{file}: exists, and `dmp predict` did not write it in this form; move it, or choose another --out"
                )

    def has(self, files: Iterable[Path], origin: str) -> bool:
        """Whether all these files were there at the start, and made from this; see `write`."""
        return all(self._origins.get(file) == origin for file in files)

    def write(self, file: Path, data: bytes, origin: str) -> None:
        """Write a file atomically. origin: digest of what it is made from."""
        file.parent.mkdir(parents=True, exist_ok=True)
        entry = {"file": self._name(file), "sha256": hashlib.sha256(data).hexdigest(), "origin": origin}
        with self.index.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{json.dumps(entry)}\n")  # the first line break ends a line that a kill has truncated
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)

    def _known(self) -> dict[str, dict[str, str]]:
        """Name → digest → origin of the files that earlier runs wrote; a line that a kill truncated is ignored.

        Earlier versions stated no origin: it is empty then.
        """
        known: dict[str, dict[str, str]] = {}
        if not os.path.lexists(self.index):
            return known
        plain = self.index.is_file() and not self.index.is_symlink()
        data = self.index.read_bytes() if plain else b""
        start = data.lstrip()[: len(_START)]
        if not plain or start != _START[: len(start)]:
            raise InputError(f"{self.index}: not the index that `dmp predict` keeps; move it, or choose another --out")
        for line in data.splitlines():
            try:
                entry = json.loads(line)
                known.setdefault(str(entry["file"]), {})[str(entry["sha256"])] = str(entry.get("origin", ""))
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        return known

    def _name(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    @staticmethod
    def _digest(file: Path) -> str | None:
        """None unless it is a regular file: other kinds are never ours."""
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() and not file.is_symlink() else None
