"""docs/results*.md, from the folders that `dmp compare` and `dmp ablate` wrote. Runs nothing itself.

    .venv/bin/dmp compare --preset mini-full --workspace runs/full --set splits.arbitrary.count=500
    .venv/bin/dmp ablate --preset mini-full --workspace runs/full
    .venv/bin/python -m docs.writing.results --workspace runs/full

Fills the text between the markers `compare` and `ablate` of each page, writes the figures to docs/images, and keeps the
numbers in docs/results. `cp -r docs/results/* runs/full/experiments/` beforehand continues from these: results that the
settings still need stay in the tables, and `dmp compare --variants` adds to them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from PIL import Image

from dmp_core.experiments.outputs import INDEX, RESULTS, VERSUS
from dmp_core.report.tables import split_name
from dmp_core.scoring.registry import metric
from docs.writing.documents import ROOT, fill

DIFFERENCES = "differences"
PAGES = {
    "compare": {
        "docs/results.md": ["order", "costs"],
        "docs/results_tables.md": ["table1", "table2", "table3", "figure3", "figure4", "figure5"],
        "docs/results_prior.md": ["generalisation", "groups", DIFFERENCES],
    },
    "ablate": {
        "docs/results_ablate.md": [
            *("table4", "training", "pretraining", "spacing", "source", "prompts", "rank", "samples"),
            *("figure6", "figure7", "figure8", DIFFERENCES),
        ]
    },
}
"""Experiment → page → its outputs."""
MOST_ROWS = 12
"""More variants than a page can compare are left to the CSV."""
IMAGES = ROOT / "docs" / "images"
STORE = ROOT / "docs" / "results"
TEXT = "differences.csv"


def main(workspace: Annotated[str, typer.Option(help="Workspace of the experiments.")] = "runs/full") -> None:
    for name in ("compare", "ablate"):
        folder = Path(workspace) / "experiments" / name
        if (folder / INDEX).exists():
            for document, outputs in PAGES[name].items():
                fill(document, name, section(folder, outputs))
            kept = STORE / name
            kept.mkdir(parents=True, exist_ok=True)
            for file in (INDEX, RESULTS, VERSUS):
                shutil.copyfile(folder / file, kept / file)
            as_text(kept)


def as_text(kept: Path) -> None:
    """The paired differences as a file that people read: rounded, and with the metric's direction."""
    rows = [
        {
            "method": row.method, "modality": row.task, "split": split_name(row.split).lower(),
            "metric": f"{(found := metric(row.task, row.metric)).label} {found.arrow}",
            **{name: f"{getattr(row, name):+.{found.decimals}f}" for name in ("difference", "ci_low", "ci_high")},
            "verdict": row.verdict,
        }
        for row in pd.read_parquet(kept / VERSUS).itertuples()
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(kept / TEXT, index=False)


def section(folder: Path, outputs: Collection[str]) -> str:
    """Outputs of an experiment as Markdown: how it was run, tables and figures, and the paired differences."""
    index = json.loads((folder / INDEX).read_text())
    made = datetime.fromtimestamp((folder / INDEX).stat().st_mtime, UTC).date()
    splits = ", ".join(f"{split_name(split).lower()} {count}" for split, count in index["splits"].items())
    parts = [f"`dmp {index['name']} --preset {index['preset']}`, {made}; images: {splits}.\n"]
    missing = [variant["title"] for variant in index["variants"].values() if not variant["scored"]]
    if missing:
        parts.append(f"Not run: {', '.join(missing)}.\n")
    chosen = {output: about for output, about in index["outputs"].items() if output in outputs}
    parts += [text for output, about in chosen.items() if (text := _output(folder, output, about))]
    return "\n".join([*parts, *(_differences(folder, index) if DIFFERENCES in outputs else [])]) + "\n"


def _output(folder: Path, output: str, about: dict[str, Any]) -> str:
    if f"{output}.md" in about["files"]:
        return (folder / f"{output}.md").read_text()
    pictures = [name for name in about["files"] if name.endswith((".svg", ".png"))]
    if not pictures:
        return ""
    source = folder / pictures[0]
    IMAGES.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".png":  # grids of images: a tenth of the size
        target = f"results-{folder.name}-{source.stem}.jpg"
        Image.open(source).convert("RGB").save(IMAGES / target, quality=85, optimize=True)
    else:
        target = f"results-{folder.name}-{source.name}"
        shutil.copyfile(source, IMAGES / target)
    return f"**{about['title']}**\n\n![{about['title']}](images/{target})\n"


def _differences(folder: Path, index: dict[str, Any]) -> list[str]:
    """Every variant against the reference on the same images."""
    frame = pd.read_parquet(folder / VERSUS)
    if frame.empty:
        return []
    reference = index["variants"][index["reference"]]["title"]
    where = f"{STORE.name}/{folder.name}/{TEXT}"
    if frame["method"].nunique() > MOST_ROWS:
        return [f"Each variant against {reference} on the same images, with 95 % intervals: [{TEXT}]({where}).\n"]
    lines = [
        f"**Modalities on which each is better than {reference} / even / worse, on the same images**\n",
        *_tally(frame),
        "",
        f"By the 95 % intervals of the paired differences: [{TEXT}]({where}).\n",
    ]
    return ["\n".join(lines)]


def _tally(frame: pd.DataFrame) -> list[str]:
    """Counts of verdicts: one row per variant, one column per split."""
    splits = list(dict.fromkeys(frame["split"]))
    lines = [f"| | {' | '.join(map(split_name, splits))} |", "|---" * (len(splits) + 1) + "|"]
    for method, rows in frame.groupby("method", sort=False):
        counts = [rows[rows["split"] == split]["verdict"].value_counts() for split in splits]
        cells = [" / ".join(str(count.get(word, 0)) for word in ("better", "even", "worse")) for count in counts]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    typer.run(main)
