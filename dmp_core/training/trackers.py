"""Curves of a training in W&B, MLflow or trackio, by accelerate's trackers. They change no result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmp_core.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from accelerate import Accelerator

    from dmp_core.training.settings import FitConfig

PROJECT = "dmp"
Track = Callable[[Mapping[str, float], int], None]


def check_trackers(names: Iterable[str]) -> None:
    """Raise MissingExtra for a tracker whose package is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise MissingExtra(name, name)


@contextmanager
def tracked(accelerator: Accelerator, config: FitConfig, work: Path, identity: str) -> Iterator[Track | None]:
    """Inside, a function that sends scalars of a step to `train.trackers`; None if there are none, or in another rank.

    work: the run is named after the artefact whose `.work` it is.
    identity: a resumed training continues its run.
    Raises InputError if a tracker does not start, as when nobody has logged in.
    """
    if not config.trackers or not accelerator.is_main_process:
        yield None
        return
    name = work.parent.name if work.name.startswith(".") else work.name
    given: dict[str, dict[str, Any]] = {
        "wandb": {"name": name, "id": identity[:16], "resume": "allow"},
        "trackio": {"name": name, "resume": "allow"},
        "mlflow": {"run_name": name},
    }
    try:
        accelerator.init_trackers(PROJECT, _flat(config.model_dump(mode="json")), given)
    except Exception as error:  # each has errors of its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"train.trackers: {', '.join(config.trackers)} cannot start ({reason}); log in or set its variables "
            "(WANDB_MODE=offline, MLFLOW_TRACKING_URI), or omit it"
        ) from error
    try:
        yield lambda values, step: accelerator.log(dict(values), step=step)
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `lora.rank`: MLflow takes no others."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str | int | float | bool) else str(value)
    return flat
