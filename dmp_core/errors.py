"""Errors that the user can fix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec

EXTRAS = {
    "accelerate": "train",
    "diffusers": "train",
    "peft": "train",
    "tensorboard": "train",
    "tokenizers": "train",
    "torch": "train",
    "torchmetrics": "train",
    "torchvision": "train",
    "transformers": "train",
    "drjit": "render",
    "mitsuba": "render",
    "gguf": "llm",
    "sentencepiece": "llm",
    "fastapi": "flows",
    "httpx": "flows",
    "prefect": "flows",
    "uvicorn": "flows",
    "contourpy": "report",
    "matplotlib": "report",
    "omnidata_tools": "labelers",
    "timm": "labelers",
    "vllm": "vllm",
    "s3fs": "s3",
    "dask": "dask",
    "distributed": "dask",
    "prefect_dask": "dask",
    "prefect_ray": "ray",
    "ray": "ray",
    "datasets": "datasets",
    "gradio": "app",
    "playwright": "e2e",
    "pip_audit": "audit",
    "mlflow": "mlflow",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""Package, as it is imported → the extra that installs it; if several do, the first that is needed."""


class InputError(ValueError):
    """Bad input: the message names the field or file and the fix. The CLI exits with code 2."""


class RunError(RuntimeError):
    """A run failed for a reason outside its input: the message states where, why and the fix. Exit code 1."""


class MissingExtra(InputError):
    """An optional capability is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        verb = "are" if "," in package else "is"
        super().__init__(f"{package} {verb} not installed; run: pip install 'dmp-pipeline[{extra}]'")
        self.package, self.extra = package, extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        """Worker processes send errors by pickle."""
        return type(self), (self.package, self.extra)

    @classmethod
    def of(cls, error: BaseException | None) -> MissingExtra | None:
        """The error for the extra that a failed import needs; None if no extra installs that package."""
        while error is not None:
            package = (getattr(error, "name", None) or "").partition(".")[0]
            if isinstance(error, ImportError) and package in EXTRAS:
                return cls(package, EXTRAS[package])
            error = error.__cause__ or error.__context__
        return None


class WrongSetting(InputError):
    """A setting that fails for every sample, detected at the first one."""


class NotFinite(InputError):
    """A model's output for one sample of a batch contains NaN or infinity.

    index: the sample's position in the batch. Callers that know the samples' names raise it again with `named`.
    """

    def __init__(self, index: int, reason: str, name: str | None = None) -> None:
        self.index, self.reason, self.name = index, reason, name
        super().__init__(f"{f'sample {index} of the batch' if name is None else name}: {reason}")

    def __reduce__(self) -> tuple[type[NotFinite], tuple[int, str, str | None]]:
        """Worker processes send errors by pickle."""
        return type(self), (self.index, self.reason, self.name)

    def named(self, names: Sequence[str]) -> NotFinite:
        """The same error, with the sample's key or file."""
        return NotFinite(self.index, self.reason, names[self.index])


def check_installed(packages: Iterable[str]) -> None:
    """Raise MissingExtra that names all of the packages that are not installed, and the extras that install them."""
    missing = sorted(name for name in set(packages) if not _is_installed(name))
    if missing:
        raise MissingExtra(", ".join(missing), ",".join(sorted({EXTRAS[name] for name in missing})))


def _is_installed(name: str) -> bool:
    try:
        found = find_spec(name)
    except ImportError:
        return False
    return found is not None and found.origin is not None  # a folder of that name, as W&B writes one, is no package
