"""The report: one offline page with tables, images, plots and provenance.

Public: `build_report` and `ReportData` (the page), `StatisticsCollector` (its dataset section),
`keys_to_show` (which samples it needs), `error_map` and `contact_sheet` (figures),
`readme_figure` (the README's grid), `dataset_card.dataset_card` (the README of a dataset).
This package turns results into something to look at. It takes plain arrays and values, never stages or
workspaces.

Names load on first use: a dataset card needs neither pandas nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmp_core.report.build import build_report
    from dmp_core.report.data import (
        ModelRecord,
        Provenance,
        QualityRecord,
        ReportData,
        Sample,
        SplitStatistics,
        StageTiming,
        TrainingRecord,
    )
    from dmp_core.report.dataset_card import DatasetCardInfo, card_from_manifests
    from dmp_core.report.figure import readme_figure
    from dmp_core.report.gallery import keys_to_show
    from dmp_core.report.pictures import SheetRow, SheetStyle, colourise_error, contact_sheet, error_map
    from dmp_core.report.statistics import StatisticsCollector

__all__ = [
    "DatasetCardInfo",
    "ModelRecord",
    "Provenance",
    "QualityRecord",
    "ReportData",
    "Sample",
    "SheetRow",
    "SheetStyle",
    "SplitStatistics",
    "StageTiming",
    "StatisticsCollector",
    "TrainingRecord",
    "build_report",
    "card_from_manifests",
    "colourise_error",
    "contact_sheet",
    "error_map",
    "keys_to_show",
    "readme_figure",
]

_MODULES = {
    "build": ("build_report",),
    "data": (
        "ModelRecord",
        "Provenance",
        "QualityRecord",
        "ReportData",
        "Sample",
        "SplitStatistics",
        "StageTiming",
        "TrainingRecord",
    ),
    # The function `dataset_card` has the same name as its module, so it is imported from there.
    "dataset_card": ("DatasetCardInfo", "card_from_manifests"),
    "figure": ("readme_figure",),
    "gallery": ("keys_to_show",),
    "pictures": ("SheetRow", "SheetStyle", "colourise_error", "contact_sheet", "error_map"),
    "statistics": ("StatisticsCollector",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
