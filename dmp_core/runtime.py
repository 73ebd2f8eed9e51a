"""Settings of execution, which change no result: devices, processes, limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from dmp_core.names import Fraction
from dmp_core.passwords import refuse_password
from dmp_core.settings import Settings


class BadSampleConfig(Settings):
    """Handling of single samples that fail; see docs/quality.md."""

    policy: Literal["fail", "skip"] = "fail"
    """`fail`: the stage stops immediately. `skip`: the sample is tried once more, a generated image with its next seed;
    if it fails again, it is recorded with the reason and omitted from all later stages."""
    at_most: Fraction = 0.01
    """Share of an artefact's samples that may be skipped, never less than one sample and never all; then the stage
    stops."""
    in_a_row: PositiveInt = 20
    """This many skipped samples in a row stop the stage, too."""

    @property
    def skips(self) -> bool:
        return self.policy == "skip"

    @property
    def bounds(self) -> BadSampleConfig | None:
        """None if no sample may fail."""
        return self if self.skips else None


class RuntimeConfig(Settings):
    """How a run is executed. None of it changes a result beyond rounding, so none of it is fingerprinted.

    The exception is `on_bad_sample`, which decides whether a result may lack samples; the others stay the same.
    """

    device: Literal["cpu", "cuda", "mps", "auto"] = "auto"
    """Device of the networks; `auto` uses an accelerator if there is one."""
    workers: PositiveInt = 2
    """Processes that render; threads that torch uses on the CPU."""
    image_batch_size: PositiveInt | Literal["auto"] = "auto"
    """First batch size of a diffusion model that makes images; halved whenever memory runs out.

    `auto` depends on device and resolution; at 512 pixels 16 on an accelerator, 1 on the CPU.
    """
    verify_inputs: bool = True
    """Compare every file that a stage reads with its recorded digest."""
    on_bad_sample: BadSampleConfig = BadSampleConfig()
    deployments: dict[str, str] = {}
    """Stage → Prefect deployment that runs it, on another work pool: `{train: train/gpu}`. Other stages run in the
    flow's own process."""
    resend: NonNegativeInt = 3
    """How many times a run on another work pool is sent again after it crashed: a killed process, a lost machine."""
    timeouts: dict[str, PositiveInt] = {}
    """Stage → its time limit in seconds; then it is stopped and the flow fails. Time in a queue does not count."""
    task_runner: Literal["thread", "process", "dask", "ray"] = "thread"
    """Where tasks run: one after another in the flow's own process (`thread`), in parallel processes on this machine,
    or on a Dask or Ray cluster."""
    parallel: PositiveInt = 1
    """Number of parallel tasks; each of them may use `workers`. A cluster given by `cluster` decides itself."""
    gpus: Literal["auto"] | Annotated[list[NonNegativeInt], Field(min_length=1)] = "auto"
    """GPUs for parallel tasks, by their numbers in torch: each task that computes on one has it for itself. `auto`: all
    visible ones; where there is only one, parallel processes share it."""
    chunk_shards: PositiveInt | None = None
    """Shards per task, for stages whose shards do not depend on each other; None: all shards of an artefact. With the
    task runner `thread`, shards per run of a stage in `deployments`."""
    cluster: str | None = None
    """Address of a running Dask scheduler (`tcp://host:8786`) or Ray cluster (`ray://host:10001`); None: one is started
    on this machine for the run."""

    @field_validator("cluster")
    @classmethod
    def _without_password(cls, address: str | None) -> str | None:
        return address and refuse_password(address, "let the scheduler's own configuration hold it")

    @model_validator(mode="after")
    def _runner_can(self) -> RuntimeConfig:
        if self.parallel > 1 and self.task_runner == "thread":
            raise ValueError("parallel: needs task_runner process, dask or ray; threads would share one random state")
        if self.cluster and self.task_runner not in ("dask", "ray"):
            raise ValueError("cluster: needs task_runner dask or ray")
        if self.gpus != "auto" and (self.task_runner == "thread" or self.device in ("cpu", "mps")):
            raise ValueError(
                "gpus: needs task_runner process, dask or ray, and no other device; for one process, "
                "set CUDA_VISIBLE_DEVICES"
            )
        return self
