"""latents → adapter: a PEFT folder with `dmp.json` and the loss curve"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from dmp_core.config.stages import RuntimeConfig, SamplingConfig
from dmp_core.errors import InputError
from dmp_core.models.shipped import resolve_folder
from dmp_core.progress import Progress, silent
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.plan import TrainStage
from dmp_core.stages.prompts import read_prompts
from dmp_core.store import Artefact, staged_folder


def run(
    config: TrainStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Train one task's adapter, resuming at the last checkpoint; or install a finished one."""
    if config.train is None:
        return _install(config, out)
    from dmp_core.training.base import DTYPES, choose_device, load_base
    from dmp_core.training.data import LatentPairs
    from dmp_core.training.lora import make_card, train_lora

    device = choose_device(runtime.device)
    source, target = (_column(inputs[role]) for role in ("source", "target"))
    base = load_base(config.base, device, DTYPES[config.train.mixed_precision])
    pairs = LatentPairs(source, target, config.train.batch_size, config.train.seed)
    default = SamplingConfig()
    card = make_card(
        config.task,
        config.base.model,
        depth_scale=config.depth_scale,
        palette=config.palette,
        sampling={"source": default.source, "num_steps": config.train.num_timesteps or default.num_steps},
        data={role: artefact.fingerprint for role, artefact in inputs.items()},
    )
    prompts = list(read_prompts(inputs["prompts"])["prompt"]) if config.train.use_prompt else None
    with staged_folder(out) as folder:
        result = train_lora(
            config.train, base, pairs, folder / ".work", folder, card=card, prompts=prompts, device=device,
            progress=progress,
        )  # fmt: skip
        if (folder / ".work" / "tensorboard").is_dir():
            shutil.copytree(folder / ".work" / "tensorboard", folder / "tensorboard", dirs_exist_ok=True)
    details = {
        "source": "trained here",
        "images": len(pairs),
        "steps": result.steps,
        "final_loss": result.final_loss,
        "trainable_parameters": result.trainable_parameters,
        "resumed_at": result.resumed_at,
    }
    return StageResult(samples=config.train.steps * config.train.batch_size, details=details)


def _column(artefact: Artefact):  # type: ignore[no-untyped-def]
    from dmp_core.training.latents import read_column

    return read_column(artefact.read_bytes(record.name) for record in artefact.published().files)


def _install(config: TrainStage, out: Artefact) -> StageResult:
    """Copy a finished adapter, so that what follows finds it where it finds all others."""
    source = adapter_folder(str(config.adapter))
    with staged_folder(out) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    return StageResult(samples=0, details={"source": "finished adapter", "adapter": str(config.adapter)})


def adapter_folder(reference: str) -> Path:
    """`shipped:NAME` or a folder. Raises InputError when it is neither."""
    folder = resolve_folder(reference, "adapters")
    if folder is None:
        raise InputError(f"{reference}: no such adapter folder; give a folder that holds dmp.json, or shipped:NAME")
    return folder
