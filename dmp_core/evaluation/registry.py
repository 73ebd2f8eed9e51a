"""The metrics, described once: what the report prints as column heads and the documentation lists.

Light on purpose (no torch, no pandas), so that anything may read it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from dmp_core.config.stages import TASKS, Task
from dmp_core.errors import InputError

PAPER_CLASSES: dict[str, int] = {"bed": 7, "pillow": 57, "lamp": 36, "window": 8, "painting": 22}
"""The five classes of Table 2 and their ADE20K-150 ids (`windowpane` is the table's window)."""

CONSTANT = "constant"
MEAN_MAP = "mean map"
CEILING = "VAE ceiling"
DMP = "DMP"
"""Names of the report's rows: the best constant, the best single map, the encoded and decoded label, the predictor."""


@dataclass(frozen=True)
class Metric:
    """One number that the protocol reports."""

    name: str
    label: str
    description: str
    higher_is_better: bool = False
    unit: str = ""
    paper: str = ""
    """The paper's table that reports it, as `Table 1`; empty when it is ours."""
    form: Literal["correct", "dmp_compat"] = "correct"
    """`dmp_compat` repeats the published code's formula, faults included, so that tables can be compared."""
    level: Literal["image", "dataset"] = "image"
    """`image`: mean of per-image values. `dataset`: from areas summed over all images."""
    decimals: int = 3
    brief: bool = True
    """Shown in the report's main tables; the others are in `metrics.json`."""

    @property
    def arrow(self) -> str:
        return "↑" if self.higher_is_better else "↓"

    def better(self, one: float, other: float) -> bool:
        """True when `one` is strictly the better value."""
        return one > other if self.higher_is_better else one < other


_NORMAL = (
    Metric("angular_deg", "Angle", "Mean angle between predicted and true normal.", unit="°", decimals=1),
    Metric("angular_median_deg", "Median angle", "Median over the pixels of an image.", unit="°", decimals=1),
    Metric("l1", "L1", "Mean absolute difference of the colour codes (n + 1) / 2.", paper="Table 1", decimals=4),
    Metric(
        "angular_dmp_compat",
        "Ang (paper)",
        "Angle between colour codes in [0, 1], in radians, as the published code computes it: "
        "not an angle between normals (a true 30° reads 11.7°).",
        unit=" rad",
        paper="Table 1",
        form="dmp_compat",
        decimals=4,
    ),
)
_DEPTH = (
    Metric("abs_rel", "REL", "Mean of |prediction - depth| / depth.", paper="Table 1"),
    Metric(
        "delta1",
        "δ",
        "Share of pixels where max(prediction / depth, depth / prediction) < 1.25.",
        higher_is_better=True,
        paper="Table 1",
    ),
    Metric(
        "rmse_relative",
        "RMSE rel.",
        "Root mean square error after scaling each map to [0, 1] on its own.",
        paper="Table 1",
    ),
    Metric("abs_rel_aligned", "REL aligned", "REL after a least-squares scale and shift per image."),
    Metric("delta1_aligned", "δ aligned", "δ after a least-squares scale and shift per image.", higher_is_better=True),
)
_SEGMENTATION = (
    Metric(
        "mean_iou",
        "mIoU",
        "Mean intersection over union of the classes that occur in the labels.",
        higher_is_better=True,
        level="dataset",
    ),
    Metric(
        "mean_acc",
        "mAcc",
        "Mean share of a class's pixels that are found, over the classes that occur in the labels.",
        higher_is_better=True,
        level="dataset",
    ),
    Metric(
        "overall_acc",
        "Pixel acc",
        "Share of labelled pixels with the right class.",
        higher_is_better=True,
        level="dataset",
    ),
    Metric(
        "five_iou",
        "mIoU of 5",
        "Mean IoU of bed, pillow, lamp, window and painting, where they occur.",
        higher_is_better=True,
        paper="Table 2",
        level="dataset",
    ),
    Metric(
        "five_acc",
        "mAcc of 5",
        "Mean accuracy of bed, pillow, lamp, window and painting, where they occur.",
        higher_is_better=True,
        paper="Table 2",
        level="dataset",
    ),
    Metric(
        "mean_iou_union",
        "mIoU (all seen)",
        "As mIoU, but a class that is predicted though no label shows it counts as 0 (mmsegmentation's mean).",
        higher_is_better=True,
        level="dataset",
        brief=False,
    ),
    *(
        Metric(
            f"{kind}_{name}",
            f"{name} {label}",
            f"{text} of the class {name}.",
            higher_is_better=True,
            paper="Table 2",
            level="dataset",
            brief=False,
        )
        for name in PAPER_CLASSES
        for kind, label, text in (("acc", "Acc", "Accuracy"), ("iou", "IoU", "Intersection over union"))
    ),
    Metric(
        "image_mean_iou",
        "mIoU per image",
        "IoU averaged over the classes in the image's label, then over images.",
        higher_is_better=True,
        brief=False,
    ),
    Metric(
        "image_overall_acc",
        "Pixel acc per image",
        "Share of right pixels in an image, averaged over images.",
        higher_is_better=True,
        brief=False,
    ),
)
_MSE = Metric("mse", "MSE", "Mean squared difference, values in [0, 1].", paper="Table 3", decimals=4)
_INTRINSIC = (
    _MSE,
    Metric("l1", "L1", "Mean absolute difference, values in [0, 1].", decimals=4),
    Metric("si_mse", "MSE scale-inv.", "MSE after the best single scale per image.", decimals=4),
)

METRICS: dict[Task, tuple[Metric, ...]] = {
    "normal": _NORMAL,
    "depth": _DEPTH,
    "segmentation": _SEGMENTATION,
    "albedo": _INTRINSIC,
    "shading": _INTRINSIC,
}
"""Per task, the primary metric first."""


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """The task's metrics, primary first; raises InputError for an unknown task."""
    if task not in METRICS:
        raise InputError(f"task {task!r} is unknown; choose one of: {', '.join(TASKS)}")
    return METRICS[task]


def primary_metric(task: Task) -> Metric:
    """The metric that decides whether a row beats the constant predictor."""
    return metrics_of(task)[0]


def image_metric(task: Task) -> Metric:
    """The per-image metric that ranks single images (best, median, worst)."""
    return metric("segmentation", "image_mean_iou") if task == "segmentation" else primary_metric(task)


def metric(task: Task, name: str) -> Metric:
    """Look a metric up; raises InputError naming the ones that exist."""
    for candidate in metrics_of(task):
        if candidate.name == name:
            return candidate
    names = ", ".join(m.name for m in metrics_of(task))
    raise InputError(f"metric {name!r} does not exist for {task}; choose one of: {names}")


def describe() -> dict[str, list[dict[str, Any]]]:
    """The registry as plain data, for `metrics.json` and the documentation."""
    return {task: [asdict(m) for m in metrics] for task, metrics in METRICS.items()}
