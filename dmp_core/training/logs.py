"""The logs of a training run: every step in `loss.csv`, every few steps in TensorBoard."""

from __future__ import annotations

import csv
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dmp_core.training.checkpoints import naming
from dmp_core.training.trackers import Track

COLUMNS = ("step", "loss", "learning_rate", "grad_norm", "seconds")
FILE = "loss.csv"

logger = logging.getLogger(__name__)


class StepRecord(NamedTuple):
    """One optimiser step; `step` counts from 1, `loss` is the batch's mean, `grad_norm` before clipping."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    seconds: float


class TrainingLog:
    """Writes `loss.csv` and TensorBoard's files under a folder; continues both after a resumed run."""

    def __init__(
        self, folder: Path, start: int, log_every: int, table: Tensor | None = None, track: Track | None = None
    ) -> None:
        """start: steps done so far; later rows were written by a killed run and are dropped.

        table: the rows up to there, from the checkpoint; None: from the file (old checkpoints have no rows).
        track: receives what TensorBoard receives.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = self.path = folder / FILE
        self.records = _recorded(path, start) if table is None else [_record(row) for row in table.tolist()]
        # Line-buffered: when the run is killed, earlier rows are in the file.
        self.stream = path.open("w", newline="", buffering=1)
        self.rows = csv.writer(self.stream)
        self.rows.writerows([COLUMNS, *self.records])
        self.log_every = log_every
        self.window: list[StepRecord] = []
        self.board = _Board(folder / "tensorboard", purge_step=start + 1)
        self.track = track

    def add(self, record: StepRecord, terms: Mapping[str, float] | None = None) -> None:
        """Log a step. TensorBoard gets the mean over `log_every` steps, less noisy than one batch.

        terms: parts of the loss by name, for TensorBoard only, at every `log_every`-th step.
        """
        with naming(self.path):
            self.rows.writerow(record)
        self.records.append(record)
        self.window.append(record)
        if record.step % self.log_every == 0:
            self._to_board(self.window)
            self.window = []
            self.board.add({f"terms/{name}": value for name, value in (terms or {}).items()}, record.step)

    def table(self) -> Tensor:
        """All rows so far, float64 (steps, columns): for the checkpoint, so that it needs no other file."""
        return torch.tensor(self.records, dtype=torch.float64).reshape(-1, len(COLUMNS))

    def close(self) -> None:
        try:
            with naming(self.path):
                self.stream.close()
        finally:
            self.board.close()

    def _to_board(self, window: list[StepRecord]) -> None:
        scalars = {
            "train/loss": sum(record.loss for record in window) / len(window),
            "train/learning_rate": window[-1].learning_rate,
            "train/grad_norm": sum(record.grad_norm for record in window) / len(window),
            "train/steps_per_second": len(window) / max(sum(record.seconds for record in window), 1e-9),
        }
        self.board.add(scalars, window[-1].step)
        if self.track is not None:
            self.track(scalars, window[-1].step)


class _Board:
    """TensorBoard's event file, written by the thread that trains, so that a failed write is an error of the training.

    `SummaryWriter` writes in a thread of its own, whose error is a traceback before it is the training's.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        """purge_step: TensorBoard drops what a killed run wrote from this step on."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        with naming(self.path):
            folder.mkdir(exist_ok=True)
            self.stream = self.path.open("xb")
        self.events = RecordWriter(self.stream)
        self._write({"file_version": "brain.Event:2"})
        self._write({"step": purge_step, "session_log": SessionLog(status=SessionLog.START)})

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        from torch.utils.tensorboard.summary import scalar

        for name, value in scalars.items():
            self._write({"step": step, "summary": scalar(name, value)})
        with naming(self.path):
            self.stream.flush()

    def close(self) -> None:
        with naming(self.path):
            self.stream.close()

    def _write(self, fields: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        with naming(self.path):
            self.events.write(Event(wall_time=time.time(), **fields).SerializeToString())


def _recorded(path: Path, start: int) -> list[StepRecord]:
    kept = [row for row in read_log(path) if row.step <= start]
    if len(kept) < start:
        logger.warning("%s: rows of %d of the %d steps done are damaged or missing", path, start - len(kept), start)
    return kept


def read_log(path: Path) -> list[StepRecord]:
    """The rows of a `loss.csv`, oldest first, up to the first damaged or truncated one."""
    if not path.is_file():
        return []
    records: list[StepRecord] = []
    with path.open(newline="", errors="replace") as stream:
        rows = csv.reader(stream)
        try:
            if tuple(next(rows, ())) == COLUMNS:
                records.extend(_record(row) for row in rows)
        except (ValueError, csv.Error):
            pass
    return records


def _record(row: Sequence[str | float]) -> StepRecord:
    """Raises ValueError when columns differ or a value is not a number."""
    step, loss, rate, norm, seconds = row
    return StepRecord(int(step), float(loss), float(rate), float(norm), float(seconds))
