"""`dmp dataset preview`: the first samples of a split as a run would make them, outside the workspace.

Captions come from the stage `prompts` and images from the source that the stage `images` opens, so they are the same.
Images of a network may differ in the last bits, since it makes fewer at once (docs/reproducibility.md).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.dataset.reading import read_prompts
from dmp_core.errors import InputError
from dmp_core.report.preview import Entry, write_preview
from dmp_core.stages.base import Node
from dmp_core.stages.execute import execute
from dmp_core.stages.images import ImagesStage, rows_of
from dmp_core.stages.plan import find, plan
from dmp_core.stages.preflight import check_needs
from dmp_core.store import Artefact, Skipped, Workspace
from dmp_core.synthesis.sources import Row, open_source


@dataclass(frozen=True)
class Preview:
    """Of one split."""

    page: Path
    made: int
    planned: int


def preview(config: PipelineConfig, split: str, count: int, out: Path, workspace: str | None = None) -> Preview:
    """Write the first `count` images of the split with their captions and a page into the folder `out`.

    All captions of the split are made, since they depend on each other, unless the workspace has them; it is only read.
    Raises InputError when there is no such split, or the folder is not empty.
    """
    if split not in config.splits:
        raise InputError(f"--split {split}: not in the configuration; choose one of: {', '.join(config.splits)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: is not an empty folder; choose another one, or delete it")
    nodes = plan(config)
    images, prompts = find(nodes, f"images/{split}"), find(nodes, f"prompts/{split}")
    check_needs([prompts, images], config.runtime)
    out.mkdir(parents=True, exist_ok=True)  # before minutes of work
    with _captions(config, prompts, workspace) as captions:
        table, skipped = read_prompts(captions), captions.published().skipped
    shown = rows_of(table[~table["key"].isin(list(skipped))][:count])
    entries = list(_entries(images, config, shown, out))
    made = sum(bool(entry.file) for entry in entries)
    lead = f"The first {len(entries)} of {len(table)} images of the split {split}."
    return Preview(write_preview(out, f"Preview: {config.dataset}", lead, entries), made, len(table))


@contextmanager
def _captions(config: PipelineConfig, node: Node, workspace: str | None) -> Iterator[Artefact]:
    """The split's captions: those of the workspace if it has them, otherwise in a temporary one."""
    if workspace is not None and (known := node.artefact(Workspace(workspace))).manifest() is not None:
        yield known
        return
    with tempfile.TemporaryDirectory(prefix="dmp-preview-") as folder:
        for needed in (*node.inputs.values(), node):  # those of other splits, which this one avoids, have no inputs
            execute(config, needed.id, folder)
        yield node.artefact(Workspace(folder))


def _entries(images: Node, config: PipelineConfig, rows: list[Row], out: Path) -> Iterator[Entry]:
    settings = images.config
    assert isinstance(settings, ImagesStage)
    with open_source(settings.images, config.runtime, settings.clip) as source:
        for row, sample in zip(rows, source.samples(rows), strict=True):
            key, prompt, keyword = row["key"], row["prompt"], row["keyword"]
            if isinstance(sample, Skipped):
                yield Entry(key, prompt, keyword, reason=sample.reason)
                continue
            (out / f"{key}.png").write_bytes(sample["png"])
            (out / f"{key}.json").write_bytes(sample["json"])
            yield Entry(key, prompt, keyword, file=f"{key}.png")
