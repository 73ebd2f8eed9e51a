"""The configuration for a folder of your own images: splits, modalities, trained or with finished adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.config.presets import dump, validate
from dmp_core.errors import InputError
from dmp_core.modalities import modality_names
from dmp_core.requests.parts import dataset_name, requests_of
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages.overwrites import held_dataset, imported, same_source, stored_folders, stored_path
from dmp_core.stages.registry import kind_of
from dmp_core.store import Workspace
from dmp_core.synthesis.listing import METADATA, SPLIT_FOLDERS, read_folders
from dmp_core.synthesis.own_images import SUFFIXES, Listing

Splits = dict[str, dict[str, Any]]
"""Name → the fields of its `SplitConfig`."""

# Users want to see their own images: all of a small folder.
_GALLERY = 32


def import_settings(
    base: PipelineConfig,
    plain: PipelineConfig,
    folder: Path,
    *,
    name: str | None = None,
    split: str | None = None,
    hold_out: float | None = None,
    fit: str = "crop",
) -> tuple[PipelineConfig, dict[str, Listing]]:
    """The configuration with the folder's images as splits, and the listing of each split's folder.

    base: preset with file and overrides; plain: the preset alone, to distinguish its adapters from the user's.
    name: of the dataset; a slug of the folder's name by default. split: of the images; `arbitrary` by default.
    hold_out: share that becomes `in_domain`, the rest `train`. fit: see `SplitConfig.fit`.
    Raises InputError for a missing or ambiguous folder, and when nothing can be made of it.
    """
    splits = _splits(folder, split, hold_out, fit)
    folders = {key: (value["folder"], value["share"]) for key, value in splits.items()}
    listings = read_folders(folders, keeps_broken=base.runtime.on_bad_sample.skips, modalities=base.known)
    return _config(base, plain, dataset_name(name, folder.resolve().name), splits, listings), listings


def check_pixels(listings: dict[str, Listing], runtime: RuntimeConfig) -> None:
    """Decode every file once, so that all broken ones, or more than may be skipped, are reported before any work."""
    from dmp_core.synthesis.checking import check_folders

    check_folders(listings.values(), runtime.on_bad_sample.bounds)


def check_name(settings: PipelineConfig, listings: dict[str, Listing], folder: Path, workspace: str) -> None:
    """Raise InputError, before any work, if the dataset of this name contains anything except this folder's images.

    The folder may have other images than before, and the same images may have moved to another folder.
    """
    place, name, root = Workspace(workspace), settings.dataset, folder.resolve()
    noted, own = stored_folders(place, name), [root, *(root / known for known in SPLIT_FOLDERS)]
    held = held_dataset(place, name)
    for split, merged in held.items():
        digest = listings[split].digest if split in listings else None
        if not imported(merged):
            raise InputError(f"dataset {name!r}: {split} holds generated images; give another --name")
        if not same_source(place, merged, digest, own):
            raise InputError(f"dataset {name!r}: {split} holds the images of another folder; give another --name")
    if requests_of(place, name):
        raise InputError(f"dataset {name!r}: it was requested with `dmp dataset new`; give another --name")
    if not held and (other := [lies for lies in noted.values() if Path(lies) not in own]):
        raise InputError(f"dataset {name!r}: is imported from {other[0]}; give another --name")


def store_settings(settings: PipelineConfig, workspace: str) -> str:
    """Write the complete configuration next to the dataset, so that `-c` needs no preset; returns its path."""
    place = Workspace(workspace)
    folder, _, file = stored_path(place, settings.dataset).rpartition("/")
    place.write_bytes(folder, file, f"extends: null\n{dump(settings)}".encode())
    return f"{workspace.rstrip('/')}/{kind_of('shards').folder}/{file}"


def _splits(folder: Path, split: str | None, hold_out: float | None, fit: str) -> Splits:
    """The folder's own split folders; else one split, or two with a part held out."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that holds PNG, JPEG, WebP, BMP or TIFF files")
    root = folder.resolve()
    own = [known for known in SPLIT_FOLDERS if (root / known).is_dir()]
    if own and (split or hold_out is not None):
        raise InputError(f"{folder}: already has a folder {own[0]}; omit --split and --hold-out")
    if split and hold_out is not None:
        raise InputError("--split, --hold-out: give one of the two")
    if hold_out is not None and not 0 < hold_out < 1:
        raise InputError(f"--hold-out {hold_out:g}: give a share between 0 and 1, e.g. 0.2")
    if own:
        _reject_images_outside(root, own)
        return {known: _split(root / known, fit) for known in own}
    if hold_out is None:
        return {split or "arbitrary": _split(root, fit)}
    return {"train": _split(root, fit, (hold_out, 1.0)), "in_domain": _split(root, fit, (0.0, hold_out))}


def _split(folder: Path, fit: str, share: tuple[float, float] = (0.0, 1.0)) -> dict[str, Any]:
    return {"folder": str(folder), "fit": fit, "share": share}


def _reject_images_outside(root: Path, own: list[str]) -> None:
    stray = [
        path
        for path in sorted(root.iterdir())
        if path.name not in own
        and not path.name.startswith((".", "__"))
        and (path.is_dir() or path.suffix.lower() in SUFFIXES or path.name == METADATA)
    ]
    if stray:
        raise InputError(f"{stray[0]}: image next to the split folders ({', '.join(own)}); move it into one of them")


def _config(
    base: PipelineConfig, plain: PipelineConfig, name: str, splits: Splits, listings: dict[str, Listing]
) -> PipelineConfig:
    """The preset with these splits; each modality is trained if possible, else predicted with a finished adapter."""
    by_model = [name for name in base.modalities if (of := base.labeler(name)) and of.kind != "exact"]
    labelled = {key: {*by_model, *listing.modalities} for key, listing in listings.items()}
    trains = labelled.get("train", set()) if len(splits) > 1 else set()
    adapters = {name: found for name in base.modalities if (found := _adapter(base, plain, name, name in trains))}
    any_labels = set().union(*labelled.values()) if "train" not in splits or len(splits) == 1 else set()
    chosen = [name for name in base.modalities if name in trains or name in adapters or name in any_labels]
    if not chosen:
        raise InputError(
            f"{next(iter(listings.values())).root}: no labels next to the images, no labeler and no adapter, so "
            "there is nothing to make; add labels (docs/own_images.md) or --set adapters.normal=FOLDER"
        )
    for key, values in splits.items():
        values["scored"] = key in ("in_domain", "out_of_domain", "train") or bool(listings[key].modalities)
    # The network works at its own resolution, whatever size the images are stored at.
    resolution = base.latents.resolution or plain.images.resolution
    values = base.model_dump(mode="json") | {
        "dataset": name,
        "splits": splits,
        "modalities": chosen,
        "adapters": {name: adapter for name, adapter in adapters.items() if name in chosen},
    }
    shown = max((len(listing.images) for key, listing in listings.items() if key != "train"), default=0)
    values["report"]["gallery"] = max(base.report.gallery, min(shown, _GALLERY))
    values["latents"]["resolution"] = resolution
    return validate(values, "dmp dataset import")


def _adapter(base: PipelineConfig, plain: PipelineConfig, name: str, trains: bool) -> str | None:
    """A modality that can be trained uses no finished adapter, unless the user named one."""
    found = base.adapters.get(name)
    if trains:
        return found if found != plain.adapters.get(name) else None
    shipped = base.base.model == "shipped:mini" and name in modality_names()
    return found or (f"shipped:{name}" if shipped else None)
