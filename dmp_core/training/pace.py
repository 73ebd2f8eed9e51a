"""A training's measured rate, and when it will end at that rate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta

log = logging.getLogger(__name__)

MEASURED_STEPS = 100
"""After so many steps the rate is reported; the first one is not counted, since it also starts the device's kernels."""


class Pace:
    """Measures the steps of this process."""

    def __init__(self, total: int, done: int, clock: Callable[[], float] = time.monotonic) -> None:
        """done: steps of earlier processes."""
        self.total, self.before, self.clock = total, done, clock
        self.started: float | None = None

    def step(self, done: int) -> str:
        """Call it after every step; the text for progress messages, empty until the rate is measured."""
        counted = done - self.before - 1
        if self.started is None:
            self.started = self.clock()
        if counted < MEASURED_STEPS - 1:
            return ""
        left = (self.clock() - self.started) / counted * (self.total - done)
        rate = counted / max(self.clock() - self.started, 1e-9)
        end = datetime.now().astimezone() + timedelta(seconds=left)
        text = f"{rate:.3g} steps/s, ends {end:%a %H:%M}"
        if counted == MEASURED_STEPS - 1:
            log.warning(
                "training: measured %.3g steps/s in %d steps; %d left, which take %s and end about %s",
                rate, MEASURED_STEPS, self.total - done, timedelta(seconds=round(left)), f"{end:%Y-%m-%d %H:%M}",
            )  # fmt: skip
        return f", {text}"
