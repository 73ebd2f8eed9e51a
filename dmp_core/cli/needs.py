"""Description of what a run needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dmp_core.runtime import RuntimeConfig
from dmp_core.stages.hardware import find_speed
from dmp_core.stages.preflight import Disk, Preflight


def describe_sources(rows: Sequence[Mapping[str, Any]], runtime: RuntimeConfig) -> Iterator[str]:
    """Where the times and sizes come from; one line per source of times that occurs, with its letter in the table.

    rows: of `dmp plan`.
    """
    sources = Counter(row["source"] for row in rows if row["seconds"] >= 1)
    speed = find_speed(runtime) if sources["computed"] else None
    meanings = {
        "measured": "like artefacts in this workspace",
        "computed": f"counted operations, and the speed of {speed.device if speed else 'the device'}",
        "default": "typical rates: with large models of a GPU of the A100 class, else of two processor cores",
    }
    for source, meaning in meanings.items():
        if sources[source]:
            yield f"  {source[0]} {source} ({sources[source]} of them): {meaning}"
    sizes = Counter(row["bytes_source"] for row in rows)
    if sizes:
        yield f"  sizes: {', '.join(f'{count} {source}' for source, count in sizes.most_common())}"


def describe_needs(needs: Preflight) -> Iterator[str]:
    """One line per missing or notable requirement; none if a run without models lacks nothing."""
    if needs.refused:
        yield f"cannot be written: {needs.refused}"
    if not needs.models and not needs.unregistered:
        yield from _refusal(needs)
        yield from (_disk_line(disk) for disk in needs.disks if disk.free < disk.needed)
        return
    missing = needs.missing
    yield f"models: {len(needs.models) - len(missing)} of {len(needs.models)} ready"
    for model in missing:
        yield f"  {model.id}: {model.bytes / 1e9:.1f} GB, {model.licence}; {model.problems[0]}; run: {model.command}"
    if len(missing) > 1:
        total = sum(model.bytes for model in missing) / 1e9
        yield f"  all of them, about {total:.1f} GB: dmp models pull {' '.join(model.id for model in missing)}"
    for reference in needs.unregistered:
        yield f"  {reference}: not in the registry; fetched from the hub when it is loaded"
    for model in needs.models:
        if model.gated:
            yield f"  {model.id}: gated; accept its terms at {model.source} and set HF_TOKEN"
    found = f"{needs.gpu} with {needs.vram_found_gb:.0f} GB" if needs.gpu else "no GPU found"
    enough = "" if needs.vram_found_gb >= needs.vram_needed_gb else "  (not enough)"
    yield f"GPU: about {needs.vram_needed_gb:.0f} GB needed; {found}{enough}"
    yield from _refusal(needs)
    yield from map(_disk_line, needs.disks)
    short = "" if needs.ram_found_gb >= needs.ram_needed_gb or not needs.ram_found_gb else "  (not enough)"
    yield f"memory: about {needs.ram_needed_gb:.0f} GB needed (computed), {needs.ram_found_gb:.0f} GB found{short}"
    yield f"GPU time: about {needs.gpu_hours:.0f} h"


def _refusal(needs: Preflight) -> Iterator[str]:
    if needs.lacks_gpu:
        yield f"dmp run will refuse: {needs.lacks_gpu}"


def _disk_line(disk: Disk) -> str:
    unit, name = (1e9, "GB") if disk.needed >= 1e8 else (1e6, "MB")
    short = "" if disk.free >= disk.needed else "  (not enough)"
    return f"disk: {disk.place}: {disk.needed / unit:.1f} {name} needed, {disk.free / unit:.1f} {name} free{short}"


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 1:
        return "-"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
