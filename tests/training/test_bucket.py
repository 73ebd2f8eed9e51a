"""Checkpoints of a workspace in a bucket: another machine resumes from them. A machine is a home folder here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_core.errors import InputError
from dmp_core.methods.dmp.finetune import finetune
from dmp_core.progress import Progress, silent
from dmp_core.stages.registry import kind_of
from dmp_core.store import Artefact, Workspace, staged_folder
from dmp_core.store.threads import threads_of_work
from dmp_core.training.bucket import shared_checkpoints
from dmp_core.training.checkpoints import load_checkpoint, save_checkpoint
from dmp_core.weights.load import load_base
from dmp_core.weights.settings import BaseConfig
from tests.training.conftest import toy_pairs
from tests.training.test_finetune import CONFIG, weights

Machine = Callable[[str], Artefact]


class Preempted(BaseException):
    pass


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """The same artefact, seen from a machine."""
    place = Workspace(f"memory://{tmp_path.name}")

    def seen(machine: str) -> Artefact:
        monkeypatch.setenv("HOME", str(tmp_path / machine))
        return kind_of("train").artefact(place, "normal-dmp", "0" * 12)

    yield seen
    place.fs.rm(place.root, recursive=True)


def train(out: Artefact, upto: int, state: Callable[[int], dict[str, Any]] | None = None) -> list[int]:
    """The steps that one machine does before it is lost; a checkpoint after each."""
    state = state or (lambda step: {"identity": "one", "step": step, "x": torch.arange(step)})
    done = []
    with (
        suppress(Preempted),
        staged_folder(out) as folder,
        shared_checkpoints(out, folder, silent) as progress,
        threads_of_work(folder),
    ):
        found = load_checkpoint(folder / ".work" / "checkpoints", "one")
        for step in range(found["step"] + 1 if found else 1, upto + 1):
            save_checkpoint(folder / ".work" / "checkpoints", step, state(step))
            progress(step, 100)
            done.append(step)
        raise Preempted
    return done


def shared(out: Artefact) -> set[str]:
    fs, folder = out.workspace.fs, out.workspace.shared_scratch(out)
    return {path.removeprefix(f"{folder}/") for path in fs.find(folder)}


def steps(*numbers: int) -> set[str]:
    return {f".work/checkpoints/step-{n:08d}/{file}" for n in numbers for file in ("state.pt", "state.sha256")}


def test_another_machine_resumes_from_the_newest_checkpoint(on):
    assert train(on("a"), 3) == [1, 2, 3]
    assert shared(on("a")) == {".threads", *steps(2, 3)}, "the newest two, as on the machine"
    assert train(on("b"), 5) == [4, 5]
    assert train(on("a"), 6) == [6], "whose own checkpoints are older"
    assert shared(on("a")) == {".threads", *steps(5, 6)}


def test_newer_checkpoints_of_this_machine_are_kept_and_sent(on):
    train(on("a"), 2)
    out = on("a")
    out.workspace.fs.rm(out.workspace.shared_scratch(out), recursive=True)
    assert train(on("a"), 3) == [3]
    assert shared(out) == {".threads", *steps(2, 3)}


def test_a_checkpoint_that_was_sent_in_part_does_not_count(on):
    out = on("a")
    train(out, 3)
    out.workspace.fs.rm_file(f"{out.workspace.shared_scratch(out)}/.work/checkpoints/step-00000003/state.sha256")
    assert train(on("b"), 3) == [3]


def test_a_bucket_that_does_not_answer_ends_no_training(on, monkeypatch, caplog):
    out, refused = on("a"), iter([True])
    put = out.workspace.fs.put_file

    def sometimes(*given: Any, **more: Any) -> None:
        if next(refused, False):
            raise ConnectionError("no route to host")
        put(*given, **more)

    monkeypatch.setattr(type(out.workspace.fs), "put_file", staticmethod(sometimes))
    assert train(out, 2) == [1, 2]
    assert "a checkpoint could not be sent there (no route to host)" in caplog.text
    assert shared(out) == {".threads", *steps(1, 2)}


def test_checkpoints_of_another_training_name_both_places(on):
    train(on("a"), 1, lambda step: {"identity": "another", "step": step})
    out = on("b")
    with pytest.raises(InputError, match=rf"delete {out.workspace.scratch(out)}.* and memory://.*train/normal-dmp-0+$"):
        train(out, 2)


def test_a_folder_keeps_its_checkpoints_to_itself(tmp_path):
    out = kind_of("train").artefact(Workspace(tmp_path), "normal-dmp", "0" * 12)
    assert train(out, 3) == [1, 2, 3]
    assert {path.name for path in tmp_path.rglob("step-*")} == {"step-00000002", "step-00000003"}
    assert train(out, 4) == [4]


def test_a_training_that_moves_ends_with_the_weights_of_one_that_stays(on, tiny_folder, tmp_path):
    def fit(folder: Path, progress: Progress) -> int:
        base = load_base(BaseConfig(model=str(tiny_folder)))
        out = folder / "adapter"
        return finetune(CONFIG, base, toy_pairs(), folder / ".work", out, device="cpu", progress=progress).resumed_at

    def lost(done: int, total: int, message: str = "") -> None:
        if done == 8:
            raise Preempted

    out = on("a")
    with suppress(Preempted), staged_folder(out) as folder, shared_checkpoints(out, folder, lost) as progress:
        (folder / ".threads").write_text("1")
        fit(folder, progress)
    out = on("b")
    with staged_folder(out) as folder, shared_checkpoints(out, folder, silent) as progress:
        assert fit(folder, progress) == 6
        moved = weights(folder / "adapter")
    fit(tmp_path, silent)
    stayed = weights(tmp_path / "adapter")
    assert moved.keys() == stayed.keys()
    assert all(torch.equal(moved[name], stayed[name]) for name in stayed)
