"""Croissant: metadata about an export's tables as JSON-LD, beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmp_core.export.dataset import write_file
from dmp_core.store import sha256_file

if TYPE_CHECKING:
    from dmp_core.export.dataset import Dataset

FILE = "croissant.json"
_CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/", "dct": "http://purl.org/dc/terms/", "conformsTo": "dct:conformsTo",
    "column": "cr:column", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "extract": "cr:extract", "field": "cr:field",
    "fileObject": "cr:fileObject", "fileProperty": "cr:fileProperty", "fileSet": "cr:fileSet", "format": "cr:format",
    "includes": "cr:includes", "isArray": "cr:isArray", "arrayShape": "cr:arrayShape", "jsonPath": "cr:jsonPath",
    "md5": "cr:md5", "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex",
    "repeated": "cr:repeated", "replace": "cr:replace", "separator": "cr:separator", "source": "cr:source",
    "subField": "cr:subField", "transform": "cr:transform", "isLiveDataset": "cr:isLiveDataset",
    "rai": "http://mlcommons.org/croissant/RAI/", "key": "cr:key", "parentField": "cr:parentField", "path": "cr:path",
    "citeAs": "cr:citeAs", "samplingRate": "cr:samplingRate", "examples": {"@id": "cr:examples", "@type": "@json"},
}  # fmt: skip
"""That of the format's version 1.0."""

TEXT: Mapping[str, Any] = {"dataType": "sc:Text"}
IMAGE: Mapping[str, Any] = {"dataType": "sc:ImageObject"}


def write_croissant(
    dataset: Dataset, folder: Path, tables: Mapping[str, str], encoding: str, columns: Mapping[str, Mapping[str, Any]]
) -> None:
    """Describe one table per split, whose records have these columns.

    tables: split → file below `folder`. columns: name → its properties; `IMAGE` is a struct with the file's bytes.
    """
    about = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": dataset.name,
        "description": f"Images with pixel-wise labels: {', '.join(one.name for one in dataset.modalities)}.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "distribution": [_file(folder, name, encoding) for name in tables.values()],
        "recordSet": [_records(split, name, columns) for split, name in tables.items()],
    }
    write_file(folder, FILE, json.dumps(about, indent=1, ensure_ascii=False))


def _file(folder: Path, name: str, encoding: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{(folder / name).stat().st_size} B",
        "encodingFormat": encoding,
        "sha256": sha256_file(folder / name),
    }


def _records(split: str, table: str, columns: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    fields: Sequence[Any] = [
        {"@type": "cr:Field", "@id": f"{split}/{name}", "name": f"{split}/{name}", **properties}
        | {"source": _source(table, name, properties)}
        for name, properties in columns.items()
    ]
    return {"@type": "cr:RecordSet", "@id": split, "name": split, "field": fields}


def _source(table: str, column: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    source = {"fileObject": {"@id": table}, "extract": {"column": column}}
    return source | ({"transform": {"jsonPath": "bytes"}} if properties == IMAGE else {})
