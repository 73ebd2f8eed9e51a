"""A stage's progress as an artifact in Prefect's interface, updated while the stage runs."""

from __future__ import annotations

import re
import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from dmp_core.progress import Listener

_SECONDS_BETWEEN_UPDATES = 2.0


def artifact_key(*parts: str) -> str:
    """Lower-case letters, digits and dashes, as Prefect requires."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


class ProgressArtifact:
    """Receives the progress of one stage and passes it on to the previous listener."""

    def __init__(self, dataset: str, then: Listener | None) -> None:
        self.dataset = dataset
        self.then = then
        self.id: UUID | None = None
        self.said = time.monotonic()
        self.done = False
        self.broken = False

    def started(self, name: str) -> None:
        get_run_logger().info("%s: started", name)
        if self.then:
            self.then.started(name)

    def advanced(self, name: str, done: int, total: int, message: str) -> None:
        """Shown every two seconds, a message also at once, and the end once: requests take longer than tiny stages."""
        due = time.monotonic() - self.said > _SECONDS_BETWEEN_UPDATES or (bool(message) and self.id is None)
        if not self.done and (due or done >= total):
            self.said, self.done = time.monotonic(), done >= total
            self._show(name, done, total, message)
        if self.then:
            self.then.advanced(name, done, total, message)

    def finished(self, name: str, seconds: float, cached: bool) -> None:
        if self.then:
            self.then.finished(name, seconds, cached)

    def _show(self, name: str, done: int, total: int, message: str) -> None:
        """Update the artifact. A server that does not answer must not end hours of work: it only causes a warning."""
        if self.broken:
            return
        percent, text = 100 * done / max(total, 1), f"{name}: {done} of {total} {message}".rstrip()
        try:
            if self.id is None:
                self.id = create_progress_artifact(percent, artifact_key("progress", self.dataset, name), text)
            else:
                update_progress_artifact(self.id, percent, text)
        except Exception as error:
            self.broken = True
            get_run_logger().warning("%s: progress is no longer shown (%s)", name, error)
