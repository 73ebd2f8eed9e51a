"""COCO: semantic annotations as run lengths, and panoptic ones with one segment per class and image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmp_core.export.dataset import Dataset, Sample, write_file
from dmp_core.modalities.files import png_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmp_core.export.registry import Options
    from dmp_core.modalities.classes import ClassMap


def write(dataset: Dataset, folder: Path, options: Options) -> int:
    """images, annotations/semantic_SPLIT.json, annotations/panoptic_SPLIT.json and its PNGs; ids as the dataset's.

    An image without a labelled pixel is listed without annotations.
    """
    modality = dataset.class_map(options.modality)
    categories = [
        {"id": number, "name": name, "supercategory": "", "isthing": 0} for number, name in enumerate(modality.classes)
    ]
    count = 0
    for split in dataset.splits:
        images: list[Any] = []
        semantic: list[Any] = []
        panoptic: list[Any] = []
        for sample in dataset.samples(split):
            count += 1
            image, label = _image(sample, count), modality.decode(sample.labels[modality.name])
            segments = list(_segments(label, modality))
            images.append(image)
            for segment in segments:
                semantic.append({"id": len(semantic) + 1, "image_id": count} | _annotation(label, segment))
            panoptic.append({"image_id": count, "file_name": f"{sample.key}.png", "segments_info": segments})
            write_file(folder, f"images/{image['file_name']}", sample.image)
            write_file(
                folder, f"annotations/panoptic_{split}/{sample.key}.png", png_bytes(_ids_as_rgb(label, modality))
            )
        for name, listed in (("semantic", semantic), ("panoptic", panoptic)):
            content = {"info": {"description": dataset.name}, "images": images, "annotations": listed}
            write_file(folder, f"annotations/{name}_{split}.json", json.dumps(content | {"categories": categories}))
    return count


def _image(sample: Sample, number: int) -> dict[str, Any]:
    width, height = sample.size
    return {"id": number, "file_name": f"{sample.key}.{sample.suffix}", "width": width, "height": height}


def _segments(label: NDArray[Any], modality: ClassMap) -> Iterator[dict[str, Any]]:
    """One per class that occurs; a segment's id is the class's plus 1, since 0 means no label."""
    for number in modality.classes_in(label) or []:
        rows, columns = np.nonzero(label == number)
        left, top = int(columns.min()), int(rows.min())
        box = [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1]
        yield {"id": number + 1, "category_id": number, "area": len(rows), "bbox": box, "iscrowd": 0}


def _annotation(label: NDArray[Any], segment: dict[str, Any]) -> dict[str, Any]:
    kept = {name: segment[name] for name in ("category_id", "area", "bbox", "iscrowd")}
    return kept | dict(segmentation=run_lengths(label == segment["category_id"]))


def _ids_as_rgb(label: NDArray[Any], modality: ClassMap) -> NDArray[np.uint8]:
    """Segment ids as COCO stores them: R + 256 · G + 65536 · B."""
    ids = np.where(modality.valid(label), label.astype(np.int32) + 1, 0)
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's uncompressed form: lengths of runs down the columns, of zeros first."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], starts, [mask.size]]))
    return {"counts": counts.tolist(), "size": list(mask.shape)}
