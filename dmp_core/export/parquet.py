"""Parquet for Hugging Face `datasets`: images as images, other maps as lists of numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmp_core.export.croissant import IMAGE, TEXT, write_croissant
from dmp_core.export.dataset import Dataset, Sample
from dmp_core.modalities import Modality

if TYPE_CHECKING:
    from dmp_core.export.registry import Options

_ROWS = 64
"""Samples that are in memory at once, and per row group."""
_FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(dataset: Dataset, folder: Path, options: Options) -> int:
    """data/SPLIT-00000-of-00001.parquet: key, image, prompt, keyword, one column per modality, and the whole record.

    croissant.json describes these.
    """
    schema = _schema(dataset)
    (folder / "data").mkdir()
    count = 0
    tables = {split: f"data/{split}-00000-of-00001.parquet" for split in dataset.splits}
    for split, table in tables.items():
        with pq.ParquetWriter(folder / table, schema) as writer:
            rows: Iterator[dict[str, Any]] = (_row(sample, dataset) for sample in dataset.samples(split))
            while some := list(islice(rows, _ROWS)):
                writer.write_table(pa.Table.from_pylist(some, schema))
                count += len(some)
    write_croissant(dataset, folder, tables, "application/x-parquet", _columns(schema))
    return count


def _columns(schema: pa.Schema) -> dict[str, Mapping[str, Any]]:
    """The columns' properties for Croissant."""
    numbers = {"dataType": "sc:Float", "isArray": True, "arrayShape": "-1,-1"}
    return {
        field.name: IMAGE if field.type == _FILE else TEXT if field.type == pa.string() else numbers for field in schema
    }


def _is_image(modality: Modality) -> bool:
    return modality.member.endswith(".png")


def _schema(dataset: Dataset) -> pa.Schema:
    numbers = pa.list_(pa.list_(pa.float32()))
    labels = [(one.name, _FILE if _is_image(one) else numbers) for one in dataset.modalities]
    columns = [("key", pa.string()), ("image", _FILE), *labels]
    columns += [(name, pa.string()) for name in ("prompt", "keyword", "record")]
    features = {name: {"_type": "Image"} for name, kind in columns if kind is _FILE}
    return pa.schema(columns, {"huggingface": json.dumps({"info": {"features": features}})})


def _row(sample: Sample, dataset: Dataset) -> dict[str, Any]:
    row = {
        "key": sample.key,
        "image": {"bytes": sample.image, "path": f"{sample.key}.{sample.suffix}"},
        "prompt": sample.record["prompt"],
        "keyword": sample.record["keyword"],
        "record": json.dumps(sample.record, ensure_ascii=False),
    }
    for modality in dataset.modalities:
        data = sample.labels[modality.name]
        file = {"bytes": data, "path": f"{sample.key}.{modality.member}"}
        row[modality.name] = file if _is_image(modality) else modality.decode(data).tolist()
    return row
