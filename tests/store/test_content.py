"""An artefact becomes stale when its inputs' files change, except logs."""

from __future__ import annotations

import hashlib
import json

from dmp_core.store import FileRecord, Manifest


def manifest(**digests: str) -> Manifest:
    files = [FileRecord(name=name.replace("__", "/"), bytes=1, sha256=digest) for name, digest in digests.items()]
    return Manifest(stage="train", stage_version=1, name="a", fingerprint="f", config={}, inputs={}, files=files,
                    samples=1, seconds=0.0, created="now")  # fmt: skip


def test_logs_are_recorded_and_do_not_count() -> None:
    weights = "adapter_model.safetensors"
    before = manifest(**{weights: "1", "loss.csv": "2", "tensorboard__events.out.1": "3", "model__loss.csv": "4"})
    again = manifest(**{weights: "1", "loss.csv": "5", "tensorboard__events.out.2": "6"})
    other = manifest(**{weights: "7", "loss.csv": "2", "tensorboard__events.out.1": "3", "model__loss.csv": "4"})
    assert again.is_content(before.content())
    assert not other.is_content(before.content())
    assert not again.is_content(before.content(logs=True))
    named = [
        FileRecord(name=name, bytes=1, sha256="") for name in ("loss.csv.safetensors", "a-loss.csv", "xtensorboard")
    ]
    assert not any(record.is_log for record in named)


def test_digests_over_all_files_in_older_manifests_are_still_valid() -> None:
    files = {"dmp.json": "1", "loss.csv": "2"}
    noted = hashlib.sha256(json.dumps(sorted(map(list, files.items()))).encode()).hexdigest()[:12]
    assert manifest(**files).is_content(noted)
    assert not manifest(**files | {"dmp.json": "3"}).is_content(noted)
