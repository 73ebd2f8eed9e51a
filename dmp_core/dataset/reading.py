"""Reads other stages' artefacts as tables and arrays."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from dmp_core.modalities import Modality
from dmp_core.store import Artefact, Sample, open_image, read_artefact
from dmp_core.weights.settings import EditorConfig

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

PROMPTS_FILE = "prompts.parquet"
_DECODED_AT_ONCE = 8
EDITOR_FOLDER = "model"
"""The model's folder in an editor's artefact."""


def read_prompts(artefact: Artefact) -> pd.DataFrame:
    """Columns key, split, keyword, prompt, seed … of a finished prompts artefact."""
    import pandas as pd

    return pd.read_parquet(io.BytesIO(artefact.read_input(PROMPTS_FILE)))


def column_array(modality: Modality | None, sample: Sample) -> NDArray[Any]:
    """The array of one sample: its label, or, if `modality` is None, its image as RGB uint8 (H, W, 3)."""
    if modality is None:
        return np.asarray(open_image(sample["png"], ("PNG",)).convert("RGB"))
    return modality.decode(sample[modality.member])


def same_size_batches(
    samples: Iterable[Sample], modality: Modality | None, size: int
) -> Iterator[list[tuple[str, NDArray[Any]]]]:
    """Batches of consecutive samples of equal size, at most `size` each. modality: as in `column_array`."""
    batch: list[tuple[str, NDArray[Any]]] = []
    for sample in samples:
        array = column_array(modality, sample)
        if batch and (len(batch) == size or batch[0][1].shape != array.shape):
            yield batch
            batch = []
        batch.append((sample["__key__"], array))
    if batch:
        yield batch


def read_labels(artefact: Artefact, modality: Modality) -> Iterator[tuple[str, np.ndarray]]:
    """(key, label) of every sample of a label or prediction artefact, in the dataset's units; decoded in threads."""
    samples = read_artefact(artefact)
    with ThreadPoolExecutor() as pool:
        while some := list(islice(samples, _DECODED_AT_ONCE)):
            labels = pool.map(modality.decode, [sample[modality.member] for sample in some])
            yield from zip([sample["__key__"] for sample in some], labels, strict=True)


def editor_of(named: EditorConfig | None, inputs: dict[str, Artefact]) -> EditorConfig | None:
    """The editor that a node uses: the one that the DAG made, or the one in its settings."""
    if "editor" in inputs:
        return EditorConfig(model=str(inputs["editor"].local_path() / EDITOR_FOLDER))
    return named
