"""The DAG (`plan`), how one node is run (`execute`), and one thin file per stage.

A stage is `run(config, inputs, out, *, runtime, shards, progress)`: it reads artefacts, calls one of the
other packages, and writes one artefact. No stage depends on another.
"""

from dmp_core.stages.base import Node
from dmp_core.stages.execute import StageOutput, announce, artefact_lock, execute, in_turn, making, ready_inputs
from dmp_core.stages.gpus import on_gpu, own_gpu, planned_gpus
from dmp_core.stages.overwrites import check_overwrites
from dmp_core.stages.plan import find, one_plan, plan
from dmp_core.stages.registry import STAGES
from dmp_core.stages.select import batches, chunks, missing_shards, select, shard_numbers, shard_text, waves
from dmp_core.stages.status import statuses

__all__ = [
    "STAGES",
    "Node",
    "StageOutput",
    "announce",
    "artefact_lock",
    "batches",
    "check_overwrites",
    "chunks",
    "execute",
    "find",
    "in_turn",
    "making",
    "missing_shards",
    "on_gpu",
    "one_plan",
    "own_gpu",
    "plan",
    "planned_gpus",
    "ready_inputs",
    "select",
    "shard_numbers",
    "shard_text",
    "statuses",
    "waves",
]
