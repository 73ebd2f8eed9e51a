"""Making artefacts in a workspace that other runs share."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dmp_core.config import load_config
from dmp_core.stages import plan, waves
from dmp_core.store import Workspace
from dmp_core.store.locks import Lock
from tests.commands import in_process


def test_what_another_run_makes_is_left_to_it_until_nothing_else_is_left(tmp_path: Path) -> None:
    workspace, nodes = Workspace(str(tmp_path)), plan(load_config("smoke"))
    first, *others = next(waves([node for node in nodes if node.stage == "prompts"]))
    assert others
    with Lock(workspace, f"prompts-{first.name}-{first.fingerprint}") as lock, ThreadPoolExecutor(1) as pool:
        lock.wait()
        run = pool.submit(in_process, "stage", "prompts", "-p", "smoke", "-w", tmp_path)
        until = time.monotonic() + 60
        while not all(node.artefact(workspace).manifest() for node in others):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert first.artefact(workspace).manifest() is None
        assert not run.done()
        lock.release()
        assert run.result().exit_code == 0
    assert first.artefact(workspace).manifest() is not None
