"""What the json of every sample of a dataset holds: the same entries with the same types, and no nulls.

Tools such as `datasets` take the types of a column from its first samples. So an entry that nothing is known of is
there all the same, with a value that cannot be mistaken for a real one, in samples of every generator and every part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dmp_core.config.stages import FLIP_GATES, TASKS, Task
from dmp_core.store import canonical_json

UNKNOWN = -9999
"""Stands for a number that is not known; text that is not known is empty."""

Schema = Mapping[str, Any]
"""Entry → its value where nothing is known, whose type is the entry's; or the entries inside."""

_REAL, _WHOLE, _TEXT = float(UNKNOWN), UNKNOWN, ""
_OWN_SCORES: dict[Task, dict[str, Any]] = {
    "normal": {"labelled": _REAL, "unit": _REAL, "normal_z": _REAL},
    "depth": {"labelled": _REAL, "near": _REAL, "far": _REAL},
    "segmentation": {"labelled": _REAL, "classes": _WHOLE, "class_share": _REAL},
    "albedo": {"label_mean": _REAL, "label_std": _REAL, "label_clipped": _REAL},
    "shading": {"label_mean": _REAL, "label_std": _REAL, "label_clipped": _REAL},
}
_IMAGE_SCORES = {
    **{"phash": _TEXT, "mean": _REAL, "std": _REAL, "clipped": _REAL, "sharpness": _REAL, "clip_score": _REAL},
    **{"hash_distance": _WHOLE, "nearest": _TEXT, "test_distance": _WHOLE, "test_nearest": _TEXT},
    **{"prompt_similarity": _REAL, "prompt_nearest": _TEXT},
}
SCORES: Schema = {"image": _IMAGE_SCORES} | {
    task: _OWN_SCORES[task] | {f"flip_{FLIP_GATES[task].split('_', 2)[2]}": _REAL} for task in TASKS
}
"""Table → score; `flagged` is the sample's `safety`."""
RECORD: Schema = {
    **{"key": _TEXT, "prompt": _TEXT, "keyword": _TEXT, "seed": _WHOLE},
    "generator": {"kind": _TEXT, "settings": _TEXT},
    "scene": _TEXT,
    "source": {"file": _TEXT, "sha256": _TEXT, "height": _WHOLE, "width": _WHOLE},
    "safety": {"checked": False, "flagged": False},
    "labels": {task: _TEXT for task in TASKS},
    "palette": _TEXT,
    "quality": SCORES,
    "other": _TEXT,
}


def uniform_record(
    found: Mapping[str, Any], labels: Mapping[str, str], palette: str, quality: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The json of a merged sample, out of its image's, `found`.

    What depends on the generator (its settings, its scene, and entries that `RECORD` does not list) becomes text that
    holds JSON.
    labels: task → how it is stored. quality: table → score.
    """
    generator, flagged = found.get("generator") or {}, (found.get("safety") or {}).get("flagged")
    scores = {table: {k: v for k, v in row.items() if k != "flagged"} for table, row in quality.items()}
    made = {
        **{name: value for name, value in found.items() if name in RECORD},
        "generator": {"kind": generator.get("kind"), "settings": _json_text(generator)},
        "scene": _json_text(found.get("scene")),
        "safety": {"checked": flagged is not None, "flagged": flagged},
        **{"labels": labels, "palette": palette, "quality": scores},
        "other": _json_text({name: value for name, value in found.items() if name not in RECORD}),
    }
    return _filled(RECORD, made, "json")


def features(schema: Schema = RECORD) -> list[dict[str, Any]]:
    """The schema as a dataset card's header states it (`dataset_info.features`)."""
    kinds = {bool: "bool", int: "int64", float: "float64", str: "string"}
    return [
        {"name": name, "struct": features(value)}
        if isinstance(value, Mapping)
        else {"name": name, "dtype": kinds[type(value)]}
        for name, value in schema.items()
    ]


def _filled(schema: Schema, found: Mapping[str, Any], place: str) -> dict[str, Any]:
    if unlisted := set(found) - set(schema):
        raise ValueError(f"{place}: {', '.join(sorted(unlisted))} not listed in dataset_record.RECORD")
    return {name: _value(default, found.get(name), f"{place}.{name}") for name, default in schema.items()}


def _value(default: Any, found: Any, place: str) -> Any:
    if isinstance(default, Mapping):
        return _filled(default, found or {}, place)
    return default if found is None else type(default)(found)


def _json_text(value: Any) -> str:
    return canonical_json(_without_nulls(value)) if value else ""


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value if item is not None] if isinstance(value, list) else value
