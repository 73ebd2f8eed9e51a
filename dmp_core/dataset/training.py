"""The training split of one modality, as methods read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dmp_core.dataset.reading import column_array, read_prompts
from dmp_core.errors import InputError
from dmp_core.modalities import Code, Modality
from dmp_core.modalities.classes import ClassMap
from dmp_core.quality.gates import Gates
from dmp_core.quality.tables import failed, left_out, score_tables
from dmp_core.store import Artefact, Sample, read_artefact

if TYPE_CHECKING:
    from dmp_core.training.data import LabelImages, LatentPairs
    from dmp_core.training.latents import LatentColumn
    from dmp_core.training.pairs import ImagePairs


class TrainingSplit:
    """The training split as methods see it: see `dmp_core.methods.protocol.TrainingData`."""

    def __init__(
        self,
        inputs: Mapping[str, Artefact],
        modality: Modality,
        code: Code,
        *,
        gates: Gates,
        samples: int | None = None,
        min_class_share: float = 0.0,
    ) -> None:
        """samples: train on the first ones only; None: all. min_class_share: as in `LatentsConfig`."""
        self.inputs, self.modality, self.code = inputs, modality, code
        self.samples, self.min_class_share = samples, min_class_share
        self.fingerprints: Mapping[str, str] = {role: artefact.fingerprint for role, artefact in inputs.items()}
        self.failed = failed(
            artefact for artefact in inputs.values() if artefact.stage in ("images", "labels", "latents")
        )
        self.dropped = left_out(score_tables(inputs, "train"), gates, "train") | self.failed

    def __len__(self) -> int:
        return len(self._kept)

    def latent_pairs(self, batch_size: int, seed: int) -> LatentPairs:
        from dmp_core.training.data import LatentPairs

        source, target = self._columns
        return LatentPairs(source, target, batch_size, seed, exclude=set(source.keys) - self._kept.keys())

    def image_pairs(self, folder: Path | None = None) -> ImagePairs:
        from dmp_core.training.pairs import ImagePairs, RowsOnDisk

        keys: list[str] = []
        images, targets = RowsOnDisk(folder, "images"), RowsOnDisk(folder, "label images")
        for sample, label in zip(self._read("images"), self._read("labels"), strict=True):
            if sample["__key__"] in self._kept:
                keys.append(sample["__key__"])
                images.append(column_array(None, sample), keys[-1])
                targets.append(self._label_image(label), keys[-1])
        return ImagePairs(keys, images.mapped(), targets.mapped(), self.modality)

    def _read(self, role: str) -> Iterator[Sample]:
        """The samples that exist in every column."""
        return (sample for sample in read_artefact(self.inputs[role]) if sample["__key__"] not in self.failed)

    def label_images(self, size: tuple[int, int]) -> LabelImages:
        from dmp_core.training.data import LabelImages

        kept = (label for label in read_artefact(self.inputs["labels"]) if label["__key__"] in self._kept)
        codes = np.empty((len(self), 3, *size), dtype=np.uint8)  # in one piece: a list would take memory twice
        for number, label in enumerate(kept):
            codes[number] = self._label_image(label, size)
        return LabelImages(codes, self.modality)

    def prompts(self) -> list[str]:
        table = read_prompts(self.inputs["prompts"])
        return list(table["prompt"][table["key"].isin(list(self._kept))])

    def class_shares(self) -> dict[int, float]:
        """For class maps: class → share of the pixels, for classes frequent enough; empty if labels are not used."""
        if not isinstance(self.modality, ClassMap) or "labels" not in self.inputs:
            return {}
        pixels = np.zeros(len(self.modality.classes), dtype=np.int64)
        for sample in read_artefact(self.inputs["labels"]):
            if sample["__key__"] in self._kept:
                label = self.modality.decode(sample[self.modality.member])
                pixels += np.bincount(label[label != self.modality.ignored], minlength=len(pixels))
        shares = pixels / max(1, pixels.sum())
        enough = np.flatnonzero((shares > 0) & (shares >= self.min_class_share))
        return dict(zip(enough.tolist(), shares[enough].tolist(), strict=True))

    @cached_property
    def _columns(self) -> tuple[LatentColumn, LatentColumn]:
        from dmp_core.training.data import without
        from dmp_core.training.latents import read_column

        def column(artefact: Artefact) -> LatentColumn:
            folder = artefact.local_path()
            whole = read_column(folder / record.name for record in artefact.published().files if record.samples)
            return without(whole, self.failed) if self.failed else whole

        return column(self.inputs["source"]), column(self.inputs["target"])

    @cached_property
    def _kept(self) -> dict[str, None]:
        """Keys to train on, in order."""
        passed = [key for key in self._keys() if key not in self.dropped]
        wanted = self.samples
        if wanted is not None and wanted > len(passed):
            raise InputError(f"train.samples: {wanted}, but the training split has {len(passed)}; enlarge splits.train")
        return dict.fromkeys(passed[:wanted])

    def _keys(self) -> Iterator[str]:
        if "source" in self.inputs:
            yield from self._columns[0].keys
        elif "images" in self.inputs:
            for sample in read_artefact(self.inputs["images"]):
                yield sample["__key__"]

    def _label_image(self, sample: Sample, size: tuple[int, int] | None = None) -> np.ndarray:
        """The label image for the VAE and all image methods, in 8-bit codes: uint8 (3, H, W), of `size` or its own."""
        label = column_array(self.modality, sample)
        label = label if size is None else self.modality.resize(label, size)
        pixels = self.modality.to_image(label[None], self.code)
        return ((pixels[0] + 1) * 127.5).round().clamp(0, 255).byte().numpy()
