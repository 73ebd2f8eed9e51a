"""The errors that a user can fix."""

from __future__ import annotations

from collections.abc import Sequence

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
    "prefect": "flows",
    "uvicorn": "flows",
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
    "playwright": "e2e",
    "pip_audit": "audit",
}
"""Package, as it is imported → the extra that brings it; of several the first that one needs."""


class InputError(ValueError):
    """Bad input: the message names the field or file and the fix. The CLI exits with code 2."""


class RunError(RuntimeError):
    """A run failed for a reason outside of its input: the message says where, why and what to do. Exit code 1."""


class MissingExtra(InputError):
    """An optional capability is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'dmp-pipeline[{extra}]'")
        self.package, self.extra = package, extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        """Errors travel from worker processes."""
        return type(self), (self.package, self.extra)

    @classmethod
    def of(cls, error: BaseException | None) -> MissingExtra | None:
        """Which extra an import lacked; None if it was none of ours."""
        while error is not None:
            package = (getattr(error, "name", None) or "").partition(".")[0]
            if isinstance(error, ImportError) and package in EXTRAS:
                return cls(package, EXTRAS[package])
            error = error.__cause__ or error.__context__
        return None


class WrongSetting(InputError):
    """A setting that suits no sample, found out at the first one."""


class NotFinite(InputError):
    """A model answered one sample of a batch with NaN or infinity.

    index: the sample's place in the batch. Whoever knows the samples' names raises it again with `named`.
    """

    def __init__(self, index: int, reason: str, name: str | None = None) -> None:
        self.index, self.reason, self.name = index, reason, name
        super().__init__(f"{f'sample {index} of the batch' if name is None else name}: {reason}")

    def __reduce__(self) -> tuple[type[NotFinite], tuple[int, str, str | None]]:
        """Errors travel from worker processes."""
        return type(self), (self.index, self.reason, self.name)

    def named(self, names: Sequence[str]) -> NotFinite:
        """The same error, with the sample's key or file."""
        return NotFinite(self.index, self.reason, names[self.index])
