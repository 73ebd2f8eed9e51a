"""Work pools for `make deploy`: queues, limits, and the image for containers."""

from __future__ import annotations

import asyncio
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from dmp_core.errors import InputError

QUEUES = {"urgent": 1, "normal": 5, "bulk": 10}
"""Queues of every pool with their priority: workers empty the lowest number first."""

MODELS_IN_IMAGE = "/home/dmp/.cache/dmp/models"
"""Where the images of docker/ look for pulled models, unless `DMP_MODELS_DIR` says otherwise."""

Template = dict[str, Any]
"""A pool's `base_job_template`: `variables` that a run may set, and the `job_configuration` that uses them."""


def make_pool(
    client: SyncPrefectClient,
    name: str,
    kind: str | None = None,
    *,
    limit: int | None = None,
    first_limit: int | None = None,
    variables: dict[str, Any] | None = None,
    models_volume: str | None = None,
) -> str:
    """Create or update a pool and its queues; returns its type. Settings that are not given stay unchanged.

    Args:
        kind: process, docker or kubernetes; process by default for a new pool.
        limit: number of parallel runs; `first_limit` by default for a new pool.
        variables: defaults of the pool's job variables, such as `image`; None counts as not given.
        models_volume: name of a claim (PVC) whose volume holds pulled models, for kubernetes.
    Raises:
        InputError: the pool exists with another type, or its type lacks or requires a variable.
    """
    variables = {variable: value for variable, value in (variables or {}).items() if value}
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        kind = kind or "process"
        template = with_models(job_template(kind, name, variables), kind, models_volume)
        limit = first_limit if limit is None else limit
        client.create_work_pool(
            WorkPoolCreate(name=name, type=kind, base_job_template=template, concurrency_limit=limit)
        )
    else:
        if kind not in (None, pool.type):
            raise InputError(
                f"--pool-type {kind}: the pool {name!r} exists with type {pool.type}; delete it first "
                f"(prefect work-pool delete {name}), then deploy again"
            )
        kind = pool.type
        if limit is not None:
            client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))
        if variables or models_volume:
            template = with_defaults(pool.base_job_template, kind, variables)
            template = with_models(template, kind, models_volume)
            client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
    _queues(client, name)
    return kind


def _queues(client: SyncPrefectClient, pool: str) -> None:
    for queue, priority in QUEUES.items():
        try:
            found = client.read_work_queue_by_name(queue, work_pool_name=pool)
            client.update_work_queue(found.id, priority=priority)
        except ObjectNotFound:
            client.create_work_queue(queue, work_pool_name=pool, priority=priority)


def job_template(kind: str, name: str, variables: dict[str, Any]) -> Template:
    """The template of a new pool. Prefect's own image lacks this package, so containers need another one."""
    template = asyncio.run(get_default_base_job_template_for_infrastructure_type(kind))
    if template is None:
        raise InputError(f"--pool-type {kind}: unknown; choose process, docker or kubernetes")
    if "image" in template["variables"]["properties"] and "image" not in variables:
        raise InputError(f"--pool-type {kind}: name an image with this package in it: --image NAME (docker/README.md)")
    if (kind, name) == ("kubernetes", "gpu"):
        pod = _pod(template)
        pod["containers"][0].setdefault("resources", {}).setdefault("limits", {})["nvidia.com/gpu"] = 1
    return with_defaults(template, kind, variables)


def with_defaults(template: Template, kind: str, variables: dict[str, Any]) -> Template:
    """The template with these values for runs whose deployments set none."""
    known = template["variables"]["properties"]
    for unknown in sorted(variables.keys() - known.keys()):
        raise InputError(f"{unknown}: a pool of type {kind} has no such variable; it has: {', '.join(sorted(known))}")
    changed = {name: {**known[name], "default": value} for name, value in variables.items()}
    return {**template, "variables": {**template["variables"], "properties": {**known, **changed}}}


def with_models(template: Template, kind: str, claim: str | None) -> Template:
    """The template with this claim's volume at the models' folder; unchanged without a claim."""
    if claim is None:
        return template
    if kind != "kubernetes":
        raise InputError(
            f"--models-volume: for kubernetes; pools of docker take --volume FOLDER_HERE:{MODELS_IN_IMAGE}"
        )
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", claim):
        raise InputError(f"--models-volume {claim}: not a name of a claim: lower-case letters, digits, dots and dashes")
    changed = deepcopy(template)
    pod = _pod(changed)
    container = pod["containers"][0]
    pod["volumes"] = [volume for volume in pod.get("volumes", []) if volume["name"] != "models"]
    pod["volumes"].append({"name": "models", "persistentVolumeClaim": {"claimName": claim}})
    mounts = [mount for mount in container.get("volumeMounts", []) if mount["name"] != "models"]
    container["volumeMounts"] = [*mounts, {"name": "models", "mountPath": MODELS_IN_IMAGE}]
    return changed


def lacks_models(template: Template) -> bool:
    """Whether pods of a kubernetes template find no pulled models: nothing is mounted at their folder or above it."""
    mounts = [mount["mountPath"] for mount in _pod(template)["containers"][0].get("volumeMounts", [])]
    env = template["variables"]["properties"].get("env", {}).get("default") or {}
    return "DMP_MODELS_DIR" not in env and not any(Path(MODELS_IN_IMAGE).is_relative_to(path) for path in mounts)


def _pod(template: Template) -> dict[str, Any]:
    pod: dict[str, Any] = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    return pod
