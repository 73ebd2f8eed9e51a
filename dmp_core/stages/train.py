"""training split → the fitted method: for DMP, an adapter with `dmp.json`"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from dmp_core.dataset.reading import editor_of
from dmp_core.dataset.training import TrainingSplit
from dmp_core.diffusion.card import CARD_FILE, read_card
from dmp_core.diffusion.model_card import write_model_card
from dmp_core.errors import InputError
from dmp_core.methods.protocol import Problem
from dmp_core.methods.registry import MethodSettings, find_method
from dmp_core.methods.settings import MethodConfig
from dmp_core.modalities import Modality
from dmp_core.progress import Progress, silent
from dmp_core.quality.gates import Gates, gates_for
from dmp_core.quality.tables import drop_counts
from dmp_core.runtime import RuntimeConfig
from dmp_core.settings import since
from dmp_core.stages.base import (
    Coded,
    Draft,
    GatesField,
    Inputs,
    ModelUse,
    Node,
    OfModality,
    StageKind,
    StageResult,
    base_hash,
    code_of,
    editor_uses,
    latents_name,
    learns_from,
    named_editor,
    of_modality,
)
from dmp_core.store import Artefact, staged_folder
from dmp_core.store.threads import threads_of_work
from dmp_core.training.nodes import this_machine
from dmp_core.weights.adapters import adapter_folder, check_finished
from dmp_core.weights.prompt_limit import cut_prompts
from dmp_core.weights.resolve import identity
from dmp_core.weights.settings import BaseConfig, EditorConfig

KIND = StageKind("train", version=2, typical=(0.04, 300), on_a_gpu=(0.06, 10), folder="adapters")


class TrainStage(OfModality, Coded):
    train: MethodSettings | None
    """None: the adapter is finished and only installed."""
    adapter: str | None
    adapter_hash: str | None
    base: BaseConfig
    base_hash: str
    min_class_share: float = since(0.0)
    """Only for class maps."""
    gates: GatesField
    editor: EditorConfig | None = since(None)
    """The editor in the settings; None: no editor is used, or the DAG makes it."""
    editor_hash: str | None = since(None)

    def uses(self) -> Iterator[ModelUse]:
        if self.train is None:
            return
        if find_method(self.train.method).needs == "latents":
            yield ModelUse("base.model", self.base.model, self.base.revision)
        if own := self.train.own_model:
            yield ModelUse(f"train.{own[0]}", own[1], own[2])
        yield from editor_uses(self.editor)

    @property
    def on_device(self) -> bool:
        return self.train is not None

    @property
    def trackers(self) -> list[str]:
        return list(getattr(getattr(self.train, "fit", self.train), "trackers", ()))


class OwnModelTrainStage(TrainStage):
    """For a method that starts from its own model."""

    model_hash: str


def add(draft: Draft, modality: Modality) -> None:
    """The fitted method. Named after the method that fits it: other inference settings and methods may share it."""
    config, name = draft.config, modality.name
    finished, fitted = config.adapters.get(name), config.train.fitted.for_modality(modality)
    learns = learns_from(config, modality) != "nothing"
    gates: Gates = gates_for(config.quality, [modality], ["train"]) if learns else {}
    if finished:
        check_finished(finished, modality, config.latents.code, captions=config.sampling.use_prompt)
    stage = TrainStage(
        **of_modality(config, modality),
        **code_of(config, modality),
        train=None if finished else fitted,
        adapter=finished,
        adapter_hash=identity(finished, None, "adapters", field=f"adapters.{name}") if finished else None,
        base=config.base,
        base_hash=base_hash(config),
        min_class_share=config.latents.min_class_share if learns and modality.has_classes else 0.0,
        gates=gates,
        **(named_editor(config) if learns else {}),
    )
    if not learns:
        draft.add(KIND, f"{name}-{fitted.method}", stage)
        return
    if own := fitted.own_model:
        stage = OwnModelTrainStage(
            **dict(stage), model_hash=identity(own[1], own[2], "priors", field=f"train.{own[0]}")
        )
    inputs = _training_data(draft, modality, fitted) | draft.scores("train", gates) | draft.made_editor()
    if fitted.reads_prompts:
        inputs["prompts"] = draft["prompts/train"]
    draft.add(KIND, f"{name}-{fitted.method}", stage, inputs, fitted.draws)


def _training_data(draft: Draft, modality: Modality, fitted: MethodConfig) -> dict[str, Node]:
    """The method's training inputs, by role."""
    config, name = draft.config, modality.name
    labels = draft.get(f"labels/train-{name}")
    if labels is None:
        raise InputError(
            f"splits.train: its folder holds no {name} labels to train on; add them, name a labeler "
            f"(labels.{name}) or a finished adapter (adapters.{name}), or leave {name} out of `modalities`"
        )
    if find_method(fitted.method).needs == "images":
        return {"images": draft["images/train"], "labels": labels}
    columns = {"source": "image", "target": name}
    latents = {role: draft[f"latents/{latents_name(config, modality, column)}"] for role, column in columns.items()}
    return latents | ({"labels": labels} if modality.has_classes or fitted.reads_labels else {})


def run(
    config: TrainStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Fit a method to one modality, resuming from its last checkpoint; or install a finished adapter."""
    if config.train is None:
        return _install(config, out)
    from dmp_core.training.bucket import shared_checkpoints

    problem, data = _prepared(config, config.train, inputs)
    with (
        staged_folder(out) as folder,
        shared_checkpoints(out, folder, progress) as reported,
        threads_of_work(folder) as threads,
    ):
        summary = _fit_here(config.train, problem, data, folder, out, runtime, reported)
        if (folder / ".work" / "tensorboard").is_dir():
            shutil.copytree(folder / ".work" / "tensorboard", folder / "tensorboard", dirs_exist_ok=True)
        write_model_card(folder)
    details = {"source": "trained here", "images": len(data), "dropped": drop_counts(data.dropped), **summary}
    details["threads"] = threads
    if config.train.reads_prompts:
        details |= cut_prompts(config.base, data.prompts())
    if problem.classes is not None:
        details["classes"] = list(problem.classes)
    return StageResult(samples=config.train.draws, details=details)


def announce(out: Artefact) -> None:
    """Write the README of an adapter that has none, as those of earlier versions; an edited one stays."""
    if out.workspace.is_local:
        write_model_card(Path(out.path))


def joins(config: TrainStage) -> bool:
    """Whether this machine only shares a training that another one leads (`train.nodes`)."""
    return config.train is not None and not this_machine(config.train.nodes_of_fit).leads


def join(
    config: TrainStage, inputs: Inputs, out: Artefact, *, runtime: RuntimeConfig, progress: Progress = silent
) -> None:
    """Share the training that makes `out` on another machine, until it ends; nothing is written here."""
    from dmp_core.training.bucket import fetch_checkpoints

    assert config.train is not None
    folder = out.workspace.scratch(out)
    fetch_checkpoints(out, folder)
    _fit_here(config.train, *_prepared(config, config.train, inputs), folder, out, runtime, progress)
    if not out.workspace.is_local:
        shutil.rmtree(folder)


def _prepared(config: TrainStage, settings: MethodConfig, inputs: Inputs) -> tuple[Problem, TrainingSplit]:
    data = TrainingSplit(
        inputs,
        config.modality,
        config.code,
        gates=config.gates,
        samples=settings.samples,
        min_class_share=config.min_class_share,
    )
    shares = data.class_shares()
    problem = Problem(
        config.modality, config.base, config.code, editor_of(config.editor, inputs),
        tuple(shares) or None, tuple(shares.values()) or None,
    )  # fmt: skip
    return problem, data


def _fit_here(
    settings: MethodConfig,
    problem: Problem,
    data: TrainingSplit,
    folder: Path,
    out: Artefact,
    runtime: RuntimeConfig,
    progress: Progress,
) -> dict[str, Any]:
    """The fit's summary; it is made in as many processes as the settings say, of this machine and others."""
    from dmp_core.training.ranks import fit_in_ranks, ranks_on
    from dmp_core.weights.load import choose_device

    fit = partial(_fit, settings, problem, data, folder)
    device, machine = choose_device(runtime.device), this_machine(settings.nodes_of_fit)
    ranks = ranks_on(device, settings.processes_of_fit)
    if ranks == machine.of == 1:
        return fit(device, progress)
    return fit_in_ranks(fit, ranks, device, progress, machine, f"{out.name}-{out.fingerprint}")


def _fit(
    settings: MethodConfig, problem: Problem, data: TrainingSplit, folder: Path, device: str, progress: Progress
) -> dict[str, Any]:
    method = find_method(settings.method)
    return method.fit(settings, problem, data, folder / ".work", folder, device=device, progress=progress)


def _install(config: TrainStage, out: Artefact) -> StageResult:
    """Copy a finished adapter to where later stages look for it; one without a card gets that of its name."""
    from dmp_core.diffusion.adapters import find_adapter, read_weights, write_card

    source = adapter_folder(str(config.adapter))
    read_weights(find_adapter(source))  # a damaged adapter is not installed
    with staged_folder(out) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
        if not (folder / CARD_FILE).exists():
            write_card(folder, read_card(source, config.task))
        write_model_card(folder)
    return StageResult(samples=0, details={"source": "finished adapter", "adapter": str(config.adapter)})
