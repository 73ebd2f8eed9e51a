"""Choose nodes of a plan: by stage, modality and split, by shard, and in batches that can run one after another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from math import ceil
from typing import Any

from dmp_core.errors import InputError
from dmp_core.stages.base import Node
from dmp_core.stages.images import ImagesStage
from dmp_core.stages.registry import STAGES, kind_of
from dmp_core.store import Artefact, Chunk, unfinished
from dmp_core.text import did_you_mean

MOST_SHARDS = 10_000_000
"""Of one artefact; a larger number is presumed a typing error."""


def select(nodes: list[Node], stage: str, modality: str | None = None, split: str | None = None) -> list[Node]:
    """The nodes of one stage, optionally only those of a modality or a split.

    Raises InputError if there is no such stage, or no node matches.
    """
    if stage not in STAGES:
        raise InputError(
            f"stage {stage!r} does not exist; choose one of: {', '.join(STAGES)}{did_you_mean(stage, STAGES)}"
        )
    chosen = [node for node in nodes if node.stage == stage and _matches(node, modality, split)]
    if not chosen:
        raise InputError(_nothing_matches([node for node in nodes if node.stage == stage], stage, modality, split))
    return chosen


def _nothing_matches(nodes: list[Node], stage: str, modality: str | None, split: str | None) -> str:
    given = {"modality": modality, "split": split}
    words = " ".join(f"--{option} {value}" for option, value in given.items() if value is not None)
    known = {option: sorted({str(v) for node in nodes if (v := _value(node, option))}) for option in given}
    wrong = [option for option, value in given.items() if value is not None and value not in known[option]]
    hints = [
        f"its artefacts have {f'the {option} ' + ', '.join(known[option]) if known[option] else f'no {option}'}"
        f"{did_you_mean(given[option], known[option])}"
        for option in wrong
    ]
    start = f"{words}: " if words else ""
    return f"{start}no artefact of stage {stage!r} matches; {'; '.join(hints) or 'see `dmp plan`'}"


def _matches(node: Node, modality: str | None, split: str | None) -> bool:
    fits = modality is None or _value(node, "modality") == modality
    return fits and (split is None or _value(node, "split") == split)


def _value(node: Node, option: str) -> Any:
    """What `--modality` or `--split` must be to match the node."""
    values = node.config.model_dump()
    return values.get("split") if option == "split" else values.get("task", values.get("column"))


def batches(nodes: list[Node]) -> Iterator[tuple[str, list[Node]]]:
    """(stage, nodes) in an order in which every node comes after its inputs, with as few batches as that allows."""
    waiting = {node.id: node for node in nodes}
    while waiting:
        stage = next(iter(waiting.values())).stage
        batch: list[Node] = []
        for node in list(waiting.values()):
            if node.stage == stage and not any(source.id in waiting for source in node.inputs.values()):
                batch.append(waiting.pop(node.id))
        yield stage, batch


def waves(nodes: list[Node]) -> Iterator[list[Node]]:
    """Groups of nodes that can run at the same time, each after the inputs of its nodes."""
    waiting = {node.id: node for node in nodes}
    while waiting:
        ready = [n for n in waiting.values() if not any(source.id in waiting for source in n.inputs.values())]
        for node in ready:
            del waiting[node.id]
        yield ready


def missing_shards(node: Node, place: Artefact) -> list[int]:
    """The shards of a node that are still to be made in `place`; its inputs must be complete."""
    source = next(node.inputs[role] for role in ("column", "labels", "images", "prompts") if role in node.inputs)
    made = source.artefact(place.workspace).published()
    count = (
        ceil((made.samples + len(made.skipped)) / node.config.samples_per_shard)
        if isinstance(node.config, ImagesStage)
        else len(made.files)
    )
    return unfinished(place, count)


def chunks(node: Node, place: Artefact, size: int) -> list[Chunk]:
    """`missing_shards` in chunks of `size`."""
    missing = missing_shards(node, place)
    return [Chunk(missing[start : start + size]) for start in range(0, len(missing), size)]


def shard_text(numbers: Iterable[int]) -> str:
    """The text that `shard_numbers` reads as these numbers: [3, 4, 5, 9] → `3-5,9`."""
    ordered = sorted(numbers)
    starts = [n for n, number in enumerate(ordered) if n == 0 or number != ordered[n - 1] + 1]
    runs = (ordered[start:end] for start, end in zip(starts, [*starts[1:], len(ordered)], strict=False))
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def shard_numbers(text: str | None, stage: str) -> list[int] | None:
    """`3-7,9` → [3, 4, 5, 6, 7, 9]; None or an empty text → None: every shard.

    Raises InputError if the text is invalid, or the stage makes no shards.
    """
    if not text:
        return None
    if not kind_of(stage).sharded:
        those = ", ".join(name for name in STAGES if kind_of(name).sharded)
        raise InputError(f"--shards {text}: stage {stage!r} makes no shards; only these do: {those}")
    numbers: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last or last > MOST_SHARDS:
            raise InputError(f"--shards {text}: write shard numbers and ranges, e.g. --shards 3-7 or --shards 0,4-6")
        numbers.update(range(first, last + 1))
    return sorted(numbers)
