"""Samples that fail are skipped one by one, within bounds."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dmp_core.errors import InputError
from dmp_core.text import one_line

_LONGEST_REASON = 500
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Skipped:
    """Takes the place of a sample that failed twice."""

    key: str
    reason: str

    @classmethod
    def of(cls, key: str, error: Exception) -> Skipped:
        """The reason is the error's first lines, without the key at their start."""
        text = one_line(str(error)) or type(error).__name__
        return cls(key, text.removeprefix(f"{key}: ")[:_LONGEST_REASON])


class Bounds(Protocol):
    """How many samples may be skipped: `runtime.on_bad_sample`."""

    @property
    def at_most(self) -> float:
        """As a share of the artefact's samples."""

    @property
    def in_a_row(self) -> int: ...


@dataclass
class SkipCount:
    """Counts the skipped samples of one artefact, in the order in which they are made, and stops at the bounds.

    The share is one of all its samples, so the result depends neither on their order nor on whether a run was resumed.
    """

    place: str
    total: int
    bounds: Bounds
    skipped: dict[str, str] = field(default_factory=dict)
    in_a_row: int = 0

    @property
    def allowed(self) -> int:
        """At least one, but never all: an empty artefact is of no use."""
        return min(max(1, int(self.bounds.at_most * self.total + 1e-9)), self.total - 1)

    def good(self) -> None:
        self.in_a_row = 0

    def bad(self, failed: Skipped) -> None:
        """Raises InputError above a bound."""
        self._count(failed)
        _log.warning("%s: %s is skipped: %s", self.place, failed.key, failed.reason)

    def made(self, keys: Iterable[str], skipped: Mapping[str, str]) -> None:
        """Count the samples with these keys, made by an earlier run or another process. Raises as `bad` does."""
        for key in keys:
            if key in skipped:
                self._count(Skipped(key, skipped[key]))
            else:
                self.good()

    def _count(self, failed: Skipped) -> None:
        self.skipped[failed.key] = failed.reason
        self.in_a_row += 1
        if len(self.skipped) > self.allowed:
            raise self._too_many(f"more than {self.allowed}, as runtime.on_bad_sample.at_most allows", failed)
        if self.in_a_row >= self.bounds.in_a_row:
            raise self._too_many(f"the last {self.in_a_row} in a row (runtime.on_bad_sample.in_a_row)", failed)

    def _too_many(self, bound: str, last: Skipped) -> InputError:
        return InputError(
            f"{self.place}: {len(self.skipped)} of {self.total} samples failed, {bound}; the last is {last.key}: "
            f"{last.reason}; fix the cause or raise the bound, then rerun: finished shards stay"
        )
