"""The DAG (`plan`), how one node is run (`execute`), and one thin file a stage.

A stage is `run(config, inputs, out, *, runtime, shards, progress)`: it reads artefacts, calls one of the
other rooms, and writes one artefact. No stage knows of another.
"""

from dmp_core.stages.execute import StageOutput, announce, execute
from dmp_core.stages.plan import STAGES, Node, find, plan

__all__ = ["STAGES", "Node", "StageOutput", "announce", "execute", "find", "plan"]
