"""The README's figure: real inputs, labels and predictions in one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dmp_core.errors import InputError
from dmp_core.modalities import Modality, built_in
from dmp_core.report.data import Sample
from dmp_core.report.pictures import RGB, SheetRow, SheetStyle, contact_sheet
from dmp_core.report.tables import split_name

if TYPE_CHECKING:
    from PIL import Image


def readme_figure(
    samples: Mapping[str, Sequence[Sample]],
    path: str | Path | None = None,
    *,
    per_split: int = 2,
    modalities: Sequence[Modality] | None = None,
    style: SheetStyle | None = None,
) -> Image.Image:
    """A grid with the first `per_split` samples of every split: image, then label and prediction per modality.

    samples: split -> samples, in the order to show. Colour ranges are common to all samples of a split.
    modalities: those that may be shown, the built-in ones by default. Writes a PNG if `path` is given.
    Raises InputError when there is nothing to show.
    """
    shown = {split: list(chosen)[:per_split] for split, chosen in samples.items() if chosen}
    known = built_in() if modalities is None else modalities
    columns = [m for m in known if any(m.name in s.predictions for chosen in shown.values() for s in chosen)]
    if not columns:
        raise InputError("readme_figure: no sample has a prediction; run the predict stage first")
    rows = [
        SheetRow(_cells(sample, columns, spans), split_name(split) if first else "", gap_above=first)
        for split, chosen in shown.items()
        for spans in [{m.name: m.span([s.labels[m.name] for s in chosen if m.name in s.labels]) for m in columns}]
        for first, sample in [(sample is chosen[0], sample) for sample in chosen]
    ]
    sheet = contact_sheet(
        rows,
        ["", *["label", "prediction"] * len(columns)],
        groups=[("Image", 1), *((modality.short, 2) for modality in columns)],
        style=style or SheetStyle(cell=112, font_size=14),
    )
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, optimize=True)
    return sheet


def _cells(
    sample: Sample, modalities: Sequence[Modality], spans: Mapping[str, tuple[float, float] | None]
) -> list[RGB | None]:
    cells: list[RGB | None] = [sample.rgb]
    for modality in modalities:
        for array in (sample.labels.get(modality.name), sample.predictions.get(modality.name)):
            cells.append(None if array is None else modality.colourise(array, span=spans[modality.name]))
    return cells
