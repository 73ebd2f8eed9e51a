"""One person's walk through a collection: what is chosen, where they are, what the page shows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

from numpy.typing import NDArray

from dmp_core.app.figures import figures, overlay
from dmp_core.app.filters import Choices, Filter, choices, chosen
from dmp_core.app.marks import Marks
from dmp_core.app.samples import Collection, Entry

NO_OVERLAY = "none"


@dataclass(frozen=True)
class Walk:
    """Immutable, so that a handler's result is the whole new state."""

    keys: tuple[str, ...] = ()
    position: int = 0

    @property
    def key(self) -> str | None:
        return self.keys[self.position] if self.keys else None

    def moved(self, by: int) -> Walk:
        """The same samples, some further or back; stops at either end."""
        return self.at(self.position + by)

    def at(self, position: int) -> Walk:
        return Walk(self.keys, max(0, min(position, len(self.keys) - 1)))


@dataclass
class Shelf:
    """A collection with its marks."""

    collection: Collection

    @cached_property
    def marks(self) -> Marks:
        place, folder = self.collection.rejects
        return Marks(place, folder, [entry.key for entry in self.collection.entries])

    @cached_property
    def choices(self) -> Choices:
        return choices(self.collection.entries)

    def chosen(self, by: Filter) -> Walk:
        """At the first of the samples that pass."""
        marked = self.marks.keys() if by.only_marked else ()
        return Walk(tuple(entry.key for entry in chosen(self.collection.entries, by, marked)))

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        return {entry.key: entry for entry in self.collection.entries}


def status(shelf: Shelf, walk: Walk, score: str = "") -> str:
    """HTML: number, key, why it was left out, prompt, and the score by which samples are ordered."""
    marks = shelf.marks.keys()
    counts = f"{len(marks)} marked in {escape(shelf.marks.address)}"
    if walk.key is None:
        return f'<p class="dmp-status">No sample passes the filters. {counts}</p>'
    entry = shelf.entries[walk.key]
    parts = [f"<b>{walk.position + 1} of {len(walk.keys)}</b>", escape(entry.key)]
    if entry.key in marks:
        parts.append('<span class="dmp-marked">marked as bad</span>')
    if entry.gate:
        parts.append(f"left out by {escape(entry.gate)}: {escape(entry.reason)}")
    if score in entry.scores:
        parts.append(f"{escape(score)} {entry.scores[score]:.4g}")
    text = " · ".join(parts)
    lines = [text, *([escape(entry.prompt)] if entry.prompt else []), counts]
    return f'<p class="dmp-status">{"<br>".join(lines)}</p>'


def scores_table(entry: Entry | None) -> list[list[Any]]:
    return [] if entry is None else [[name, round(value, 4)] for name, value in sorted(entry.scores.items())]


def shown(shelf: Shelf, walk: Walk, above: str, opacity: float) -> str:
    """HTML: the image, with one map laid over it if asked, and all maps."""
    if walk.key is None:
        return ""
    entry = shelf.entries[walk.key]
    seen = shelf.collection.show(entry)
    images: dict[str, NDArray[Any]] = {}
    if seen.image is not None:
        images["image"] = seen.image
        if above in seen.maps:
            images[f"image and {above}"] = overlay(seen.image, seen.maps[above], opacity)
    images |= seen.maps
    return figures(images, entry.key) if images else "<p>It failed before there were an image and labels.</p>"
