"""Prediction of your own image files with a finished adapter: settings, names, and which files may be overwritten."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dmp_core.config import load_config
from dmp_core.config.pipeline import PipelineConfig
from dmp_core.diffusion.card import AdapterCard
from dmp_core.errors import InputError, NotFinite
from dmp_core.images import check_image, open_rgb
from dmp_core.modalities import Modality, find_modality, modality_names
from dmp_core.names import Precision
from dmp_core.reading import read_text, shown
from dmp_core.store import Sample, SkipCount, Skipped
from dmp_core.store.attempts import first_that_works
from dmp_core.weights.adapters import adapter_card, adapter_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmp_core.diffusion import DMPPipeline

INDEX = ".dmp_predict.jsonl"
"""Names and digests of all files written to a folder, one object per line, each before its file."""
_START = b'{"file"'
_LONGEST_CAPTION = 2**16  # bytes

log = logging.getLogger(__name__)


def prediction_config(
    preset: str, file: Path | None, overrides: list[str] | None, adapter: str, name: str | None
) -> tuple[PipelineConfig, Modality]:
    """The configuration: the adapter's card overrides the preset, the user's own settings override both.

    name: the modality to predict; None: that of the card. Also returns that modality.
    Raises InputError if these contradict what the adapter learned, and if neither states what it predicts.
    """
    card = adapter_card(adapter, name)
    modality = _requested_modality(card, adapter, name)
    if modality is not None:
        card.check(adapter, modality)
    config = load_config(preset, file, overrides, _card_settings(card, modality))
    modality = modality or config.modality(str(name))
    card.check(adapter, modality, config.latents.code)
    if card.captioned and not config.sampling.use_prompt:
        log.warning(
            "%s: trained with captions, and run without; for better results write each image's into NAME.txt, and set "
            "sampling.use_prompt=true and sampling.guidance_scale=2", adapter,
        )  # fmt: skip
    return config, modality


def _requested_modality(card: AdapterCard, adapter: str, name: str | None) -> Modality | None:
    """None if only the configuration can define it."""
    if name is None and card.modality is None:
        raise InputError(f"{adapter}: its card does not state what it predicts; give --modality NAME")
    if name is None or name == card.task:
        return card.modality
    return find_modality(name) if name in modality_names() else None


def _card_settings(card: AdapterCard, modality: Modality | None) -> dict[str, Any]:
    """Settings in a card, under the configuration's field names; no caption is needed unless the user asks for it."""
    sampling: dict[str, Any] = {name: getattr(card, name) for name in ("num_steps", "source") if name in card.stated()}
    sampling["use_prompt"] = False
    if card.encoding.class_shares is None:
        sampling["colour_noise"] = None
    latents: dict[str, Any] = {} if modality is None else card.code_of(modality)
    latents.pop("axes", None)  # not a setting: prediction takes them from the card
    if card.resolution is not None:
        latents |= {"resolution": card.resolution, "resolutions": {}}
    published = {} if card.use_prompt is None else {"base": {"model": card.base}}
    return {"sampling": sampling, "latents": latents} | published


def predict_files(
    images: Sequence[Path], modality: Modality, adapter: str, out: Path, config: PipelineConfig
) -> Iterator[Path]:
    """Predict image files one by one; yields the paths of the views.

    Writes `NAME.normal.pred.png` (the dataset's encoding) and `NAME.normal.view.png` (to look at); labels never have
    such names.
    config: of `prediction_config`.
    Raises InputError, before any work, if two images share a name, or if it would overwrite a file that this command
    did not write; and for an image that fails, unless `runtime.on_bad_sample` allows to skip it.
    """
    from dmp_core.methods.dmp.predict import load_predictor
    from dmp_core.weights.load import choose_device

    bounds = config.runtime.on_bad_sample.bounds
    for image in images if bounds is None else ():
        check_image(image)
    outputs = _outputs(images, modality, out)
    written = Written(out, [file for output in outputs for file in (output.label, output.view)])
    device = choose_device(config.runtime.device)

    @cache
    def pipeline(dtype: Precision) -> DMPPipeline:
        return load_predictor(config.base, adapter_folder(adapter), device, dtype)

    pipeline(config.sampling.dtype)  # errors here are not about an image
    count = None if bounds is None else SkipCount("dmp predict", len(outputs), bounds)
    for output in outputs:
        make = partial(_predicted, pipeline, output.image, modality, config)
        sample = make() if count is None else first_that_works(shown(output.image), [make, make])
        if isinstance(sample, Skipped):
            assert count is not None
            count.bad(sample)
            continue
        if count is not None:
            count.good()
        written.write(output.label, sample["label"])
        written.write(output.view, sample["view"])
        yield output.view


def _predicted(
    pipeline: Callable[[Precision], DMPPipeline], image: Path, modality: Modality, config: PipelineConfig
) -> Sample:
    """The bytes of an image's `label` and of its `view`, a rendering to look at."""
    from dmp_core.finite import finite_predictions
    from dmp_core.methods.dmp.predict import predict_batch

    rgb = open_rgb(image, image)
    latents = config.latents
    caption = _caption(image) if config.sampling.use_prompt else None

    def labels(images: Sequence[NDArray[Any]], dtype: Precision) -> NDArray[Any]:
        loaded = pipeline(dtype)
        return predict_batch(
            loaded,
            np.stack(images),
            modality,
            config.sampling,
            code=latents.code,
            resolution=latents.resolution_of(modality.name) or loaded.native_resolution,
            prompts=None if caption is None else [caption] * len(images),
        )

    own = partial(labels, dtype=config.sampling.dtype)
    try:
        (label,) = finite_predictions([rgb], [shown(image)], own, partial(labels, dtype="float32"))
    except NotFinite:
        raise
    except InputError as error:
        raise InputError(f"{shown(image)}: {error}") from None
    return {"__key__": str(image), "label": modality.encode(label), "view": _view(modality, label)}


def _caption(image: Path) -> str:
    """What `NAME.txt` next to the image says."""
    file = image.with_suffix(".txt")
    if not file.is_file():
        raise InputError(
            f"{shown(file)}: missing, and sampling.use_prompt needs the caption of {shown(image)} there; write it, or "
            "set sampling.use_prompt=false"
        )
    return " ".join(read_text(file, _LONGEST_CAPTION).split())


def _view(modality: Modality, label: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(modality.colourise(label)).save(buffer, "PNG")
    return buffer.getvalue()


# -------------------------------------------------------------------------------------- names
@dataclass(frozen=True)
class _Output:
    image: Path
    label: Path
    view: Path


def _outputs(images: Iterable[Path], modality: Modality, out: Path) -> list[_Output]:
    """Paths of each image's results: from its name, or from its path below the images' common folder if names clash."""
    unique = list({os.path.abspath(image): image for image in images}.values())
    stems = [Path(image.stem) for image in unique]
    if clash(stems):
        common = os.path.commonpath([os.path.abspath(image.parent) for image in unique])
        stems = [Path(os.path.relpath(os.path.abspath(image), common)).with_suffix("") for image in unique]
    if twins := clash(stems):
        same = [str(image) for image, stem in zip(unique, stems, strict=True) if _folded(stem) == twins]
        raise InputError(f"{' and '.join(same)}: their results would have one name; predict them apart, or rename one")
    word, _, suffix = modality.member.partition(".")
    return [
        _Output(
            image,
            out / stem.with_name(f"{stem.name}.{word}.pred.{suffix}"),
            out / stem.with_name(f"{stem.name}.{modality.name}.view.png"),
        )
        for image, stem in zip(unique, stems, strict=True)
    ]


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
        known = self._known()
        for file in files:
            if os.path.lexists(file) and self._digest(file) not in known.get(self._name(file), ()):
                raise InputError(
                    f"{file}: exists, and `dmp predict` did not write it in this form; move it, or choose another --out"
                )

    def write(self, file: Path, data: bytes) -> None:
        """Write a file atomically."""
        file.parent.mkdir(parents=True, exist_ok=True)
        entry = {"file": self._name(file), "sha256": hashlib.sha256(data).hexdigest()}
        with self.index.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{json.dumps(entry)}\n")  # the first line break ends a line that a kill has truncated
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)

    def _known(self) -> dict[str, set[str]]:
        """Name → digests of the files that earlier runs wrote; a line that a kill truncated is ignored."""
        known: dict[str, set[str]] = {}
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
                known.setdefault(str(entry["file"]), set()).add(str(entry["sha256"]))
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        return known

    def _name(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    @staticmethod
    def _digest(file: Path) -> str | None:
        """None unless it is a regular file: other kinds are never ours."""
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() and not file.is_symlink() else None
