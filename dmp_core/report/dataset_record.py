"""Schema of every sample's json in a dataset: the same entries with the same types, and no nulls.

Tools such as `datasets` infer the types of a column from its first samples. So unknown entries exist as well, with a
value that cannot be mistaken for a real one, in samples of every generator and every part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dmp_core.modalities import Modality, with_built_in
from dmp_core.store import canonical_json

UNKNOWN = -9999
"""Value of an unknown number; unknown text is empty."""

Schema = Mapping[str, Any]
"""Entry → its value if unknown, which also gives its type; or the nested entries."""

_REAL, _WHOLE, _TEXT = float(UNKNOWN), UNKNOWN, ""
_IMAGE_SCORES = {
    **{"phash": _TEXT, "mean": _REAL, "std": _REAL, "clipped": _REAL, "sharpness": _REAL, "clip_score": _REAL},
    **{"hash_distance": _WHOLE, "nearest": _TEXT, "test_distance": _WHOLE, "test_nearest": _TEXT},
    **{"prompt_similarity": _REAL, "prompt_nearest": _TEXT},
}


def record_schema(modalities: Iterable[Modality] = ()) -> Schema:
    """Entries of a sample's json in a dataset with these modalities.

    The built-in modalities are always listed, so that all datasets without others have the same entries.
    """
    listed = with_built_in(modalities)
    return {
        **{"key": _TEXT, "prompt": _TEXT, "keyword": _TEXT, "seed": _WHOLE},
        "generator": {"kind": _TEXT, "settings": _TEXT},
        "scene": _TEXT,
        "source": {"file": _TEXT, "sha256": _TEXT, "height": _WHOLE, "width": _WHOLE},
        "safety": {"checked": False, "flagged": False},
        "labels": {modality.name: _TEXT for modality in listed},
        "palette": _TEXT,
        # `flagged` is the sample's `safety`.
        "quality": {"image": _IMAGE_SCORES} | {modality.name: _scores(modality) for modality in listed},
        "other": _TEXT,
    }


def _scores(modality: Modality) -> Schema:
    unknown = {float: _REAL, int: _WHOLE, str: _TEXT}
    return {name: unknown[kind] for name, kind in modality.quality_scores.items()} | {modality.flip_score: _REAL}


RECORD = record_schema()
"""Of a dataset with built-in modalities alone."""


def uniform_record(
    found: Mapping[str, Any],
    labels: Mapping[str, str],
    palette: str,
    quality: Mapping[str, Mapping[str, Any]],
    schema: Schema = RECORD,
) -> dict[str, Any]:
    """The json of a merged sample, from its image's json, `found`.

    Entries that depend on the generator (its settings, its scene, and entries that are not in the schema) become JSON
    in a text field.
    labels: modality → how it is stored. quality: table → score. schema: of `record_schema`.
    """
    generator, flagged = found.get("generator") or {}, (found.get("safety") or {}).get("flagged")
    scores = {table: {k: v for k, v in row.items() if k != "flagged"} for table, row in quality.items()}
    made = {
        **{name: value for name, value in found.items() if name in schema},
        "generator": {"kind": generator.get("kind"), "settings": _json_text(generator)},
        "scene": _json_text(found.get("scene")),
        "safety": {"checked": flagged is not None, "flagged": flagged},
        **{"labels": labels, "palette": palette, "quality": scores},
        "other": _json_text({name: value for name, value in found.items() if name not in schema}),
    }
    return _filled(schema, made, "json")


def features(schema: Schema = RECORD) -> list[dict[str, Any]]:
    """The schema in the form of a dataset card's header (`dataset_info.features`)."""
    kinds = {bool: "bool", int: "int64", float: "float64", str: "string"}
    return [
        {"name": name, "struct": features(value)}
        if isinstance(value, Mapping)
        else {"name": name, "dtype": kinds[type(value)]}
        for name, value in schema.items()
    ]


def _filled(schema: Schema, found: Mapping[str, Any], place: str) -> dict[str, Any]:
    if unlisted := set(found) - set(schema):
        raise ValueError(f"{place}: {', '.join(sorted(unlisted))} not listed in the schema of dataset_record")
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
