"""What reading and encoding beside the network saves: a stage whose device, reader and encoders take equally long.

    python -m benchmarks.overlap

The device and the encoders sleep, so that the figure is that of the code and not of this machine. Prints the seconds of
the stage in turn and overlapped, each in relation to the longest of its parts; 1 would be perfect.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dmp_core.store import Sample
from dmp_core.store.attempts import batch_or_each, overlapped

Keyed = tuple[str, int]


class SleepingStage:
    """Batches that are read, computed and encoded, each for so long; encoding in `workers` threads."""

    def __init__(self, batches: int, size: int, seconds: float, workers: int) -> None:
        """seconds: of the device per batch; reading and encoding a batch take as long."""
        self.count, self.size, self.seconds, self.workers = batches, size, seconds, workers

    def batches(self) -> Iterator[list[Keyed]]:
        for number in range(self.count):
            time.sleep(self.seconds)
            yield [(f"train-{number * self.size + index:08d}", index) for index in range(self.size)]

    def compute(self, batch: Sequence[Keyed]) -> list[int]:
        time.sleep(self.seconds)
        return [value for _, value in batch]

    def encode(self, key: str, value: int) -> Sample:
        time.sleep(self.seconds * self.workers / self.size)
        return {"__key__": key, "value": value}

    def in_turn(self) -> list[object]:
        """As the published code does: decode, network, encode, next."""

        def made(batch: Sequence[Keyed]) -> list[Sample]:
            results = self.compute(batch)
            time.sleep(self.seconds)
            return [{"__key__": key, "value": value} for (key, _), value in zip(batch, results, strict=True)]

        return [
            sample
            for batch in self.batches()
            for sample in batch_or_each(batch, [key for key, _ in batch], made, skips=False)
        ]

    def overlapped(self) -> list[object]:
        def opened() -> None:
            return None

        return [
            *overlapped(self.batches(), self.compute, self.encode, opened=opened, skips=False, workers=self.workers)
        ]


def main(
    batches: Annotated[int, typer.Option(min=2)] = 50,
    size: Annotated[int, typer.Option(min=1, help="Samples per batch.")] = 8,
    seconds: Annotated[float, typer.Option(min=0.001, help="Of the device, per batch.")] = 0.1,
    workers: Annotated[int, typer.Option(min=1, help="Threads that encode.")] = 2,
) -> None:
    stage = SleepingStage(batches, size, seconds, workers)
    table = Table("", "seconds", "× the longest part", title=f"{batches} batches of {size}, {seconds:g} s each")
    found = []
    for name, run in (("in turn", stage.in_turn), ("overlapped", stage.overlapped)):
        started = time.perf_counter()
        found.append(run())
        took = time.perf_counter() - started
        table.add_row(name, f"{took:.2f}", f"{took / (batches * seconds):.2f}")
    assert found[0] == found[1], "the same samples in the same order"
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
