"""Semantic segmentation into the 150 classes of ADE20K."""

from __future__ import annotations

from dataclasses import dataclass

from dmp_core.modalities.base import Array, CardText, Classes, Code, Metric, Published
from dmp_core.modalities.classes import CLASS_SCORES, ClassMap, class_metrics
from dmp_core.resources import ade20k_classes

PAPER_CLASSES: dict[str, int] = {"bed": 7, "pillow": 57, "lamp": 36, "window": 8, "painting": 22}
"""The five classes of Table 2 and their ADE20K-150 ids (`windowpane` is the table's window)."""
_FIVE = "bed, pillow, lamp, window and painting, where they occur."


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation(ClassMap):
    """Its classes are coloured by the configuration's `latents.palette`."""

    @property
    def list_name(self) -> str:
        return "ADE20K-150"

    def _nearest(self, colours: Array, code: Code, classes: Classes) -> Array:
        """In the space and among the classes of `code`."""
        palette = self.palette(code)
        if code.decoded_classes == "paper":
            palette, classes = palette.others_black(), None
        return palette.decode(colours, classes, code.colour_space)


def _of_paper(name: str, label: str, description: str, *, brief: bool) -> Metric:
    return Metric(name, label, description, higher_is_better=True, paper="Table 2", level="dataset", brief=brief)


MODALITY = Segmentation(
    name="segmentation",
    title="Segmentation",
    short="Classes",
    member="seg.png",
    classes=ade20k_classes(),
    paper_classes=PAPER_CLASSES,
    metrics=class_metrics(
        own=[
            _of_paper("five_iou", "mIoU of 5", f"Mean IoU of {_FIVE}", brief=True),
            _of_paper("five_acc", "mAcc of 5", f"Mean accuracy of {_FIVE}", brief=True),
            *(
                _of_paper(f"{kind}_{name}", f"{name} {label}", f"{text} of the class {name}.", brief=False)
                for name in PAPER_CLASSES
                for kind, label, text in (("acc", "Acc", "Accuracy"), ("iou", "IoU", "Intersection over union"))
            ),
        ]
    ),
    quality_scores=CLASS_SCORES,
    card=CardText(
        stored="8-bit grey PNG",
        meaning="Class id, 0 to 149 in ADE20K-150 order; 255 means no label.",
        snippet='classes = np.asarray(Image.open(io.BytesIO(sample["seg.png"])))  # (H, W) ids',
        category="image-segmentation",
    ),
    published=Published(("seg", "segmentation"), {"palette": "dmp2"}),
    instruction="make it into the corresponding semantic segmentation map",
)
