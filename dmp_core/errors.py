"""The errors that a user can fix."""

from __future__ import annotations

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
