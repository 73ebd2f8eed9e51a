"""The finished artefacts of a workspace by stage, and the runs that its reports state."""

from __future__ import annotations

from typing import Any

import yaml

from dmp_core.stages.registry import kind_of
from dmp_core.store import Manifest, Workspace
from dmp_core.store.folders import names_in
from dmp_core.store.workspace import known_manifests


def finished(workspace: Workspace, stage: str) -> list[Manifest]:
    """Manifests of a stage's finished artefacts, the newest last."""
    folder = kind_of(stage).place(workspace)
    paths = (f"{folder}/{name}/manifest.json" for name in names_in(workspace.fs, folder))
    return sorted(known_manifests(workspace, paths).values(), key=lambda one: one.created)


def run_config(report: Manifest) -> dict[str, Any]:
    """The configuration of a report's run, under today's field names; of `runtime` and `editor` it states nothing."""
    return {"modalities" if name == "tasks" else name: value for name, value in report.config["pipeline"].items()}


def config_text(report: Manifest) -> str:
    """The same as a complete file for `--config`."""
    return yaml.safe_dump({"extends": None} | run_config(report), sort_keys=False, width=100, allow_unicode=True)
