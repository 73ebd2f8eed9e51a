"""What it costs to compare every input with its recorded digest (`runtime.verify_inputs`).

    make demo
    .venv/bin/python -m benchmarks.digests --workspace runs/demo [--write]

Per stage: the bytes that its artefacts read as inputs, the seconds that hashing them takes now, and the seconds that
their manifests record for the whole stage. --write puts the table into docs/reproducibility.md.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from typing import Annotated

import typer

from dmp_core.config import load_config
from dmp_core.stages import plan
from dmp_core.store import Artefact, Workspace
from docs.writing.documents import fill


def hashing_seconds(artefact: Artefact) -> tuple[int, float]:
    """(bytes, seconds) of one reading of all its files, without the time that the disk takes."""
    data = [artefact.read_bytes(record.name) for record in artefact.published().files]
    started = time.perf_counter()
    for content in data:
        hashlib.sha256(content).hexdigest()
    return sum(map(len, data)), time.perf_counter() - started


def main(
    workspace: Annotated[str, typer.Option(help="A finished demo.")] = "runs/demo",
    preset: str = "mini",
    write: bool = False,
) -> None:
    place = Workspace(workspace)
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for node in plan(load_config(preset)):
        read = [hashing_seconds(source.artefact(place)) for source in node.inputs.values()]
        total = totals[node.stage]
        total[0] += sum(size for size, _ in read)
        total[1] += sum(seconds for _, seconds in read)
        total[2] += node.artefact(place).published().seconds
    lines = ["| stage | inputs, MB | hashing, s | the stage, s | share |", "|---|---|---|---|---|"]
    for stage, (size, hashing, whole) in totals.items():
        share = f"{hashing / whole:.2%}" if whole else "–"
        lines.append(f"| {stage} | {size / 1e6:.1f} | {hashing:.3f} | {whole:.1f} | {share} |")
    hashing, whole = sum(total[1] for total in totals.values()), sum(total[2] for total in totals.values())
    lines.append(f"| all | | {hashing:.3f} | {whole:.1f} | {hashing / whole:.2%} |")
    typer.echo("\n".join(lines))
    if write:
        fill("docs/reproducibility.md", "digests", "\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
