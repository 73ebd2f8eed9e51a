"""Curves of a training in W&B, MLflow or trackio, by accelerate's trackers. They change no result."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmp_core.errors import InputError, check_installed

if TYPE_CHECKING:
    import torch
    from accelerate.tracking import GeneralTracker

    from dmp_core.training.settings import TrackedConfig

PROJECT = "dmp"
ID = "tracker_id"
"""File in a training's `.work` by which W&B knows the run."""
Track = Callable[[Mapping[str, float], int], None]
_log = logging.getLogger(__name__)


@contextmanager
def tracked(config: TrackedConfig, work: Path, step: int, device: torch.device) -> Iterator[Track | None]:
    """Inside, a function that sends scalars of a step to `train.trackers`; None if there are none.

    work: the run is named after the artefact whose `.work` it is.
    step: steps done so far; unless it is 0, the training resumes and continues its run.
    Raises MissingExtra, or InputError if a tracker does not start, as when nobody has logged in. One that fails later
    is reported and left out from then on: hours of training do not depend on it, and `loss.csv` has the whole curve.
    """
    if not config.trackers:
        yield None
        return
    check_installed(config.trackers)
    try:
        trackers = _Trackers(_started(config, work, step, device))
    except Exception as error:  # each has errors of its own
        raise InputError(
            f"train.trackers: {', '.join(config.trackers)} cannot start ({_reason(error)}); log in or set its "
            "variables (WANDB_MODE=offline, MLFLOW_TRACKING_URI), or omit it"
        ) from error
    try:
        yield trackers.log
    finally:
        trackers.finish()


def _started(config: TrackedConfig, work: Path, step: int, device: torch.device) -> Iterator[GeneralTracker]:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState(cpu=device.type == "cpu")  # the trackers' own log needs it
    name = work.parent.name if work.name.startswith(".") else work.name
    given: dict[str, dict[str, Any]] = {
        "wandb": {"name": name, "id": _run_id(work, new=step == 0), "resume": "allow"},
        "trackio": {"name": name, "resume": "allow" if step else "never"},
        "mlflow": {"run_name": name},
    }
    for kind in dict.fromkeys(config.trackers):
        tracker = LOGGER_TYPE_TO_CLASS[kind](PROJECT, **given[kind])
        tracker.start()
        tracker.store_init_configuration(_flat(config.model_dump(mode="json")))
        yield tracker


class _Trackers:
    """Those that still work."""

    def __init__(self, trackers: Iterable[GeneralTracker]) -> None:
        self.trackers = [*trackers]

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._each(lambda tracker: tracker.log(dict(values), step=step))

    def finish(self) -> None:
        self._each(lambda tracker: tracker.finish())

    def _each(self, action: Callable[[GeneralTracker], Any]) -> None:
        for tracker in [*self.trackers]:
            try:
                action(tracker)
            except Exception as error:  # each has errors of its own
                self.trackers.remove(tracker)
                _log.warning(
                    "train.trackers: %s failed (%s) and gets no more points; loss.csv and TensorBoard have them all",
                    tracker.name,
                    _reason(error),
                )


def _run_id(work: Path, *, new: bool) -> str:
    """By which a resumed training finds its run, and one that starts again gets another."""
    work.mkdir(parents=True, exist_ok=True)
    file = work / ID
    if new or not file.is_file():
        file.write_text(uuid.uuid4().hex[:16])
    return file.read_text()


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `lora.rank`: MLflow takes no others."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str | int | float | bool) else str(value)
    return flat
