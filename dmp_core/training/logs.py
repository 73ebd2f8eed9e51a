"""The logs of a training run: every step in `loss.csv`, every few steps in TensorBoard."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dmp_core.training.checkpoints import naming

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

    def __init__(self, folder: Path, start: int, log_every: int, table: Tensor | None = None) -> None:
        """start: steps done so far; later rows were written by a killed run and are dropped.

        table: the rows up to there, from the checkpoint; None: from the file (old checkpoints have no rows).
        """
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        path = self.path = folder / FILE
        self.records = _recorded(path, start) if table is None else [_record(row) for row in table.tolist()]
        # Line-buffered: when the run is killed, earlier rows are in the file.
        self.stream = path.open("w", newline="", buffering=1)
        self.rows = csv.writer(self.stream)
        self.rows.writerows([COLUMNS, *self.records])
        self.log_every = log_every
        self.window: list[StepRecord] = []
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

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
            for name, value in (terms or {}).items():
                self.board.add_scalar(f"terms/{name}", value, record.step)

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
            "loss": sum(record.loss for record in window) / len(window),
            "learning_rate": window[-1].learning_rate,
            "grad_norm": sum(record.grad_norm for record in window) / len(window),
            "steps_per_second": len(window) / max(sum(record.seconds for record in window), 1e-9),
        }
        for name, value in scalars.items():
            self.board.add_scalar(f"train/{name}", value, window[-1].step)


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
