"""Check everything in a workspace: bytes against digests, contents against manifests, and left-over files.

A digest shows that a file has not changed since it was written. Only reading shows whether it was written correctly:
images and labels are decoded, tables and weights are loaded.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from dmp_core.errors import InputError
from dmp_core.modalities import Modality
from dmp_core.modalities.registry import modalities_of, modality_of_stage
from dmp_core.progress import Progress, silent
from dmp_core.stages.registry import STAGES, kind_of
from dmp_core.store import Artefact, Manifest, Sample, Workspace, shard_plans, shard_reader
from dmp_core.store.folders import age_of, hidden_in, names_in
from dmp_core.store.folders import remove as remove_path
from dmp_core.store.members import open_image
from dmp_core.store.workspace import README, FileRecord, read_manifest, sidecars

OLD = 3600.0
"""Seconds after which a temporary file belongs to no running process."""

Kind = Literal["damaged", "unfinished", "left over", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One problem of a workspace."""

    path: str
    kind: Kind
    """damaged: changed since it was made. unfinished: begun, no manifest; a run resumes it. left over: of no use to any
    run. unknown: not written by a stage, and never removed."""
    problem: str
    remove: tuple[str, ...] = ()
    """Files that a repair removes, so that the next run makes them again."""


def verify_workspace(workspace: Workspace, progress: Progress = silent) -> Iterator[Finding]:
    """Problems of a workspace, artefact by artefact; reads every file once."""
    found = artefacts_in(workspace)
    images: dict[str, Artefact] = {}
    for number, artefact in enumerate(found):
        progress(number, len(found), artefact.path.removeprefix(f"{workspace.root}/"))
        if artefact.stage == "images":
            images[artefact.fingerprint] = artefact
        yield from verify_artefact(artefact, images)
    yield from _latest_report(workspace)
    yield from left_over(workspace)
    progress(len(found), len(found), "")


def artefacts_in(workspace: Workspace) -> list[Artefact]:
    """Every artefact's folder in a workspace, complete or not, in the order of the DAG."""
    return [_artefact(workspace, stage, path) for stage in STAGES for path in _artefact_folders(workspace, stage)]


def verify_artefact(artefact: Artefact, images: dict[str, Artefact] | None = None) -> Iterator[Finding]:
    """Problems of one artefact.

    images: finished image artefacts by fingerprint, for the sizes that labels must have.
    """
    try:
        if artefact.exists("manifest.json"):
            read_manifest(artefact.workspace, artefact.file("manifest.json"))
        manifest = artefact.manifest()
    except InputError as error:
        yield Finding(artefact.file("manifest.json"), "damaged", str(error), (artefact.file("manifest.json"),))
        return
    if manifest is None:
        yield from _without_manifest(artefact)
        return
    broken = {name: "missing, or its bytes have changed" for name in artefact.verify()}
    broken |= {
        name: problem
        for name, problem in _wrong_contents(artefact, manifest, images or {}, set(broken))
        if name not in broken
    }
    sharded = kind_of(artefact.stage).sharded
    for name, problem in broken.items():
        yield Finding(artefact.file(name), "damaged", problem, _to_remove(artefact, name, sharded))
    if sharded:
        yield from _wrong_sidecars(artefact, manifest, set(broken))
    yield from _unlisted_files(artefact, manifest)


def repair(workspace: Workspace, findings: Sequence[Finding]) -> list[str]:
    """Remove damaged and left-over files, so that the next run makes them again; returns what was removed."""
    removed = []
    for path in dict.fromkeys(path for finding in findings for path in finding.remove):
        if workspace.fs.exists(path):
            remove_path(workspace.fs, path)
            removed.append(path)
    return removed


# ------------------------------------------------------------------------------ artefacts
def _artefact_folders(workspace: Workspace, stage: str) -> Iterator[str]:
    """Folders of a stage's artefacts; merged datasets have one per split or part."""
    top = _folders(workspace, kind_of(stage).place(workspace))
    yield from (inner for path in top for inner in _folders(workspace, path)) if kind_of(stage).stable else top


def _folders(workspace: Workspace, path: str) -> list[str]:
    paths = [f"{path}/{name}" for name in names_in(workspace.fs, path)]
    return [path for path in paths if workspace.fs.isdir(path)]


def _artefact(workspace: Workspace, stage: str, path: str) -> Artefact:
    """The artefact of a folder; its fingerprint is in the name, that of a merged dataset in its manifest."""
    if kind_of(stage).stable:
        name = path.removeprefix(f"{kind_of(stage).place(workspace)}/")
        return Artefact(workspace, stage, name, _stated_fingerprint(workspace, path), path)
    name, _, fingerprint = path.rsplit("/", 1)[-1].rpartition("-")
    return Artefact(workspace, stage, name, fingerprint, path)


def _stated_fingerprint(workspace: Workspace, path: str) -> str:
    try:
        return str(json.loads(workspace.fs.cat_file(f"{path}/manifest.json"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _without_manifest(artefact: Artefact) -> Iterator[Finding]:
    if not re.fullmatch(r"[0-9a-f]{12}", artefact.fingerprint) and artefact.stage != "shards":
        yield Finding(artefact.path, "unknown", "not the folder of an artefact")
    elif artefact.exists("manifest.json"):
        problem = "its manifest is of another artefact; the folder was renamed or copied"
        yield Finding(artefact.path, "damaged", problem, (artefact.path,))
    else:
        yield Finding(artefact.path, "unfinished", "has no manifest; the run that began it resumes it")
        for record in sidecars(artefact):
            if artefact.exists(record.name) and artefact.digest(record.name) != record.sha256:
                remove = tuple(map(artefact.file, (f"{record.name.rsplit('.', 1)[0]}.json", record.name)))
                yield Finding(artefact.file(record.name), "damaged", "its bytes have changed", remove)


def _to_remove(artefact: Artefact, name: str, sharded: bool) -> tuple[str, ...]:
    """A shard is made again alone; the manifest is removed with it, since its details may be wrong. Other artefacts
    are made again as a whole."""
    if not sharded:
        return (artefact.path,)
    sidecar = f"{name.rsplit('.', 1)[0]}.json"
    return tuple(artefact.file(file) for file in ("manifest.json", sidecar, name))


# --------------------------------------------------------------------- sidecars, unknown files
def _wrong_sidecars(artefact: Artefact, manifest: Manifest, broken: set[str]) -> Iterator[Finding]:
    """Check sidecars and the index, which repeat the manifest's entries."""
    for record in manifest.files:
        name = f"{record.name.rsplit('.', 1)[0]}.json"
        if record.name not in broken and _read_record(artefact, name) != record:
            problem = "differs from the manifest's entry for this shard"
            yield Finding(artefact.file(name), "damaged", problem, _to_remove(artefact, record.name, True))
    if artefact.stage == "shards" and _read_json(artefact, "index.json") != _index(manifest):
        remove = (artefact.file("manifest.json"), artefact.file("index.json"))
        yield Finding(artefact.file("index.json"), "damaged", "does not list the shards of the manifest", remove)


def _index(manifest: Manifest) -> dict[str, Any]:
    return {
        "wids_version": 1,
        "shardlist": [{"url": record.name, "nsamples": record.samples} for record in manifest.files],
    }


def _read_record(artefact: Artefact, name: str) -> FileRecord | None:
    try:
        return FileRecord.model_validate(_read_json(artefact, name))
    except ValueError:
        return None


def _read_json(artefact: Artefact, name: str) -> Any:
    try:
        return json.loads(artefact.workspace.fs.cat_file(artefact.file(name)))
    except (OSError, ValueError):
        return None


def _unlisted_files(artefact: Artefact, manifest: Manifest) -> Iterator[Finding]:
    """Files in a finished artefact that its manifest does not list."""
    stated = {record.name for record in manifest.files} | {"manifest.json", "index.json", README}
    stated |= {f"{record.name.rsplit('.', 1)[0]}.json" for record in manifest.files}
    for path in artefact.workspace.fs.find(artefact.path):
        name = path.removeprefix(artefact.path).lstrip("/")
        if name in stated or _is_temporary(path):
            continue
        if re.fullmatch(r"shard-\d{6}\.\w+", name):
            yield Finding(path, "left over", "a shard that the manifest does not list", (path,))
        else:
            yield Finding(path, "unknown", "not written by a stage")


def _latest_report(workspace: Workspace) -> Iterator[Finding]:
    """The copy of the newest report at `report/`; the next run copies it again."""
    path = f"{workspace.root}/report"
    if not workspace.fs.exists(f"{path}/manifest.json"):
        return
    copy = Artefact(workspace, "report", "report", _stated_fingerprint(workspace, path), path)
    for finding in verify_artefact(copy):
        yield replace(finding, remove=(path,) if finding.kind == "damaged" else ())


# ------------------------------------------------------------------------------- left over
def left_over(workspace: Workspace) -> Iterator[Finding]:
    """Temporary files and folders of runs that have ended, and working folders of finished artefacts."""
    for path, info in sorted(workspace.fs.find(workspace.root, detail=True).items()):
        if _is_temporary(path) and age_of(info) > OLD:
            yield Finding(path, "left over", "temporary file of a run that has ended", (path,))
    for stage in STAGES:
        for path in _hidden_folders(workspace, stage):
            if all(age_of(info) > OLD for info in workspace.fs.find(path, detail=True).values()):
                yield Finding(path, "left over", "begun by an interrupted remake", (path,))
    if not workspace.is_local:
        return
    for folder in sorted((Path(workspace.root) / ".scratch").glob("*/*")):
        name, _, fingerprint = folder.name.rpartition("-")
        stage = folder.parent.name
        if stage in STAGES and kind_of(stage).artefact(workspace, name, fingerprint).exists("manifest.json"):
            yield Finding(str(folder), "left over", "working folder of a finished artefact", (str(folder),))


def _hidden_folders(workspace: Workspace, stage: str) -> Iterator[str]:
    """Artefacts that are being made next to those that they will replace."""
    top = kind_of(stage).place(workspace)
    for folder in _folders(workspace, top) if kind_of(stage).stable else [top]:
        yield from (f"{folder}/{name}" for name in hidden_in(workspace.fs, folder) if not name.endswith(".tmp"))


def _is_temporary(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name.startswith(".") and name.endswith(".tmp")


# -------------------------------------------------------------------------------- contents
def _wrong_contents(
    artefact: Artefact, manifest: Manifest, images: dict[str, Artefact], broken: set[str]
) -> Iterator[tuple[str, str]]:
    """(file, problem of its content) of files whose digests are right."""
    if artefact.stage in _SAMPLES:
        yield from _wrong_shards(artefact, manifest, images, broken)
        return
    for record in manifest.files:
        load = _LOADERS.get(f".{record.name.rsplit('.', 1)[-1]}")
        if load is not None and record.name not in broken:
            try:
                load(bytes(artefact.workspace.fs.cat_file(artefact.file(record.name))))
            except Exception as error:  # whatever the format's reader raises
                yield record.name, f"cannot be read ({error})"


def _wrong_shards(
    artefact: Artefact, manifest: Manifest, images: dict[str, Artefact], broken: set[str]
) -> Iterator[tuple[str, str]]:
    try:
        read, plans = shard_reader(artefact), shard_plans(artefact)
    except InputError as error:
        yield manifest.files[0].name, str(error)
        return
    check, source = _SAMPLES[artefact.stage], images.get(manifest.inputs.get("images", ""))
    sizes = _image_sizes(source) if source is not None and artefact.stage in ("labels", "predict") else {}
    for plan, record in zip(plans, manifest.files, strict=True):
        if record.name in broken:
            continue
        try:
            samples = read(plan.index)
            if artefact.stage != "shards" and tuple(sample["__key__"] for sample in samples) != plan.keys:
                raise InputError("its samples do not match its name")
            for sample in samples:
                check(sample, manifest, sizes.get(sample["__key__"]))
        except InputError as error:
            yield record.name, str(error)


def _image_sizes(images: Artefact) -> dict[str, tuple[int, int]]:
    """(height, width) of every image, by key; empty if its shards cannot be read."""
    try:
        if images.manifest() is None or images.verify():
            return {}
        read = shard_reader(images)
        samples = (sample for plan in shard_plans(images) for sample in read(plan.index))
        return {sample["__key__"]: _image(sample).size[::-1] for sample in samples}
    except (InputError, OSError):
        return {}


def _check_image(sample: Sample, manifest: Manifest, size: tuple[int, int] | None) -> None:
    try:
        _image(sample)
        json.loads(sample["json"])
    except (InputError, ValueError, KeyError) as error:
        raise InputError(f"{sample['__key__']}: image or metadata cannot be read ({error})") from None


def _image(sample: Sample) -> Image.Image:
    """The image of a sample, in either of the two formats."""
    return open_image(sample["png"] if "png" in sample else sample["jpg"])


def _check_label(sample: Sample, manifest: Manifest, size: tuple[int, int] | None) -> None:
    modality = modality_of_stage(manifest.config)
    _check_map(sample["__key__"], modality, sample.get(modality.member), size)


def _check_map(key: str, modality: Modality, data: bytes | None, size: tuple[int, int] | None) -> None:
    if data is None:
        raise InputError(f"{key}: has no {modality.name} label")
    label = modality.decode(data)
    if size is not None and label.shape[:2] != size:
        raise InputError(f"{key}: its {modality.name} label is {label.shape[:2]} pixels, its image {size}")
    try:
        modality.check_stored(data)
    except InputError as error:
        raise InputError(f"{key}: {error}") from None


def _check_merged(sample: Sample, manifest: Manifest, size: tuple[int, int] | None) -> None:
    _check_image(sample, manifest, None)
    found = _image(sample).size[::-1]
    for modality in modalities_of(manifest.config):
        if modality.member in sample:
            _check_map(sample["__key__"], modality, sample[modality.member], found)


_SAMPLES: dict[str, Callable[[Sample, Manifest, tuple[int, int] | None], None]] = {
    "images": _check_image,
    "labels": _check_label,
    "predict": _check_label,
    "shards": _check_merged,
}
"""Check per sample, for the stages that write tars."""


def _load_weights(data: bytes) -> None:
    from safetensors.torch import load

    for name, tensor in load(data).items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} holds values that are not finite")


def _load_table(data: bytes) -> None:
    import pandas as pd

    pd.read_parquet(io.BytesIO(data))


_LOADERS: dict[str, Callable[[bytes], object]] = {
    ".parquet": _load_table,
    ".json": json.loads,
    ".safetensors": _load_weights,
}
"""Readers of the other stages' files, by suffix."""
