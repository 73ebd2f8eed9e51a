"""The README's picture: real inputs, labels and predictions in one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmp_core.config.stages import TASKS, Task
from dmp_core.errors import InputError
from dmp_core.report.data import Sample
from dmp_core.report.pictures import RGB, SheetRow, SheetStyle, colourise, contact_sheet, depth_range
from dmp_core.report.tables import SHORT_NAMES, split_name

if TYPE_CHECKING:
    from PIL import Image


def readme_figure(
    samples: Mapping[str, Sequence[Sample]],
    path: str | Path | None = None,
    *,
    per_split: int = 2,
    palette: NDArray[np.uint8] | None = None,
    style: SheetStyle | None = None,
) -> Image.Image:
    """A grid with the first `per_split` samples of every split: image, then label and prediction a task.

    samples: split -> samples, in the order to show. The depth colours span one range per split. Writes a
    PNG when `path` is given. Raises InputError when there is nothing to show.
    """
    shown = {split: list(chosen)[:per_split] for split, chosen in samples.items() if chosen}
    tasks = [t for t in TASKS if any(t in s.predictions for chosen in shown.values() for s in chosen)]
    if not tasks:
        raise InputError("readme_figure: no sample has a prediction; run the predict stage first")
    rows = [
        SheetRow(_cells(sample, tasks, palette, metres), split_name(split) if first else "", gap_above=first)
        for split, chosen in shown.items()
        for metres in [depth_range([s.labels["depth"] for s in chosen if "depth" in s.labels])]
        for first, sample in [(sample is chosen[0], sample) for sample in chosen]
    ]
    sheet = contact_sheet(
        rows,
        ["", *["label", "prediction"] * len(tasks)],
        groups=[("Image", 1), *((SHORT_NAMES[task], 2) for task in tasks)],
        style=style or SheetStyle(cell=112, font_size=14),
    )
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, optimize=True)
    return sheet


def _cells(
    sample: Sample, tasks: Sequence[Task], palette: NDArray[np.uint8] | None, metres: tuple[float, float]
) -> list[RGB | None]:
    cells: list[RGB | None] = [sample.rgb]
    for task in tasks:
        for array in (sample.labels.get(task), sample.predictions.get(task)):
            cells.append(None if array is None else colourise(task, array, palette=palette, metres=metres))
    return cells
