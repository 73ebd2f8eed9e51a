"""Protect finished datasets from being overwritten: a merged dataset's folder has no fingerprint in its path.

Columns and samples of a finished dataset stay. A configuration may change how they are made: another labeler, image
generator, size, file format or quality gate, more images, more labels; and a folder of images may have new files.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from dmp_core.errors import InputError
from dmp_core.modalities.registry import modalities_of
from dmp_core.stages.base import Node
from dmp_core.stages.prompts import FolderPromptsStage, PromptsStage
from dmp_core.stages.registry import kind_of
from dmp_core.store import Manifest, Workspace
from dmp_core.store.workspace import split_manifests
from dmp_core.yaml import load_yaml


def check_overwrites(nodes: Iterable[Node], workspace: Workspace) -> None:
    """Raise InputError, before any work, if making these would remove columns or samples from a finished dataset."""
    for node in nodes:
        if node.stage != "shards":
            continue
        out = node.artefact(workspace)
        folder, _, split = out.path.rpartition("/")
        held = split_manifests(workspace, folder).get(split) if out.exists("manifest.json") else None
        if held is not None and held.fingerprint != node.fingerprint and (lost := _lost(node, held, workspace)):
            raise InputError(
                f"{out.address}: holds {lost}, which this configuration would overwrite; give the new dataset "
                "another name: --set dataset=NAME (`dmp dataset new` and `import`: --name NAME), or delete that folder"
            )


def held_dataset(workspace: Workspace, name: str) -> dict[str, Manifest]:
    """Manifests of a dataset's finished splits and parts, by the name of their folder."""
    return split_manifests(workspace, f"{kind_of('shards').place(workspace)}/{name}")


def prompts_of(workspace: Workspace, merged: Manifest) -> Manifest | None:
    """The manifest of a part's prompts, via its images; None if they have been removed."""
    found: Manifest | None = merged
    for stage in ("images", "prompts"):
        fingerprint = found.inputs.get(stage) if found else None
        artefact = kind_of(stage).artefact(workspace, str(merged.config["split"]), fingerprint or "")
        found = artefact.manifest() if fingerprint else None
    return found


def imported(merged: Manifest) -> bool:
    """Whether the images were imported from a folder."""
    return bool(merged.details.get("generator") == "folder")


def same_source(workspace: Workspace, merged: Manifest, digest: str | None, folders: Iterable[Path]) -> bool:
    """Whether an imported split has this digest, so that its folder may have moved, or comes from one of these folders.

    The folder is recorded in the configuration of the last import, else in the prompts' manifest: identical prompts are
    not made again for a folder that has moved.
    """
    prompts = prompts_of(workspace, merged)
    if prompts is not None and digest is not None and prompts.config.get("digest") == digest:
        return True
    lay = set(stored_folders(workspace, str(merged.config["dataset"])).values())
    if not lay and prompts is not None:
        lay = {str(prompts.details.get("folder"))}
    return not lay.isdisjoint(str(folder.resolve()) for folder in folders)


def stored_path(workspace: Workspace, name: str) -> str:
    """Where `dmp dataset import` keeps a dataset's configuration."""
    return f"{kind_of('shards').place(workspace)}/{name}.yaml"


def stored_folders(workspace: Workspace, name: str) -> dict[str, str]:
    """Split → its images' folder, as recorded by `dmp dataset import`; empty for a dataset of another command.

    Raises InputError if the recorded file is not one that this command wrote.
    """
    path = stored_path(workspace, name)
    if not workspace.fs.exists(path):
        return {}
    try:
        settings = load_yaml(workspace.fs.cat_file(path))
        splits = {split: values.get("folder") for split, values in settings["splits"].items()}
        own = settings["dataset"] == name and any(splits.values())
    except (OSError, yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
        own = False
    if not own:
        raise InputError(
            f"{workspace.address(path)}: not a configuration of `dmp dataset import`; move it, or give --name NAME"
        )
    return {split: folder for split, folder in splits.items() if folder}


def _lost(node: Node, held: Manifest, workspace: Workspace) -> str:
    """Description of what the finished split would lose; empty if it would only be made in another way."""
    columns = [m.name for m in modalities_of(held.config) if m.name in held.inputs and m.name not in node.inputs]
    if columns:
        return f"labels of {', '.join(columns)}"
    prompts = node.inputs["images"].inputs["prompts"].config
    if isinstance(prompts, FolderPromptsStage):
        folder = Path(str(prompts.source.folder)).expanduser()
        same = imported(held) and same_source(workspace, held, prompts.digest, [folder])
        return "" if same else f"{_samples(held)} of another folder" if imported(held) else _samples(held)
    if imported(held):
        return f"{_samples(held)} of a folder"
    assert isinstance(prompts, PromptsStage)
    return _lost_samples(prompts, held, prompts_of(workspace, held))


def _lost_samples(wanted: PromptsStage, held: Manifest, prompts: Manifest | None) -> str:
    count = held.samples + sum(held.details.get("dropped", {}).values())  # before the gates
    if gone := sorted(set(held.details.get("keywords", ())) - set(wanted.keywords)):
        shown = ", ".join(gone[:4]) + (f" and {len(gone) - 4} more" if len(gone) > 4 else "")
        return f"{_samples(held)} of {shown}"
    if wanted.count < count:
        return f"{_samples(held)} (requested now: {wanted.count})"
    seed = prompts.config.get("seed") if prompts else None
    return f"{_samples(held)} of seed {seed}" if seed not in (None, wanted.seed) else ""


def _samples(held: Manifest) -> str:
    return f"{held.samples} sample{'' if held.samples == 1 else 's'}"
