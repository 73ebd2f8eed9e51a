"""a text-to-image model + rendered pairs of before and after → the model that edits by instructions: `model/`"""

from __future__ import annotations

from collections.abc import Iterable

from dmp_core.prior.editor import EditorRecipe, train_editor
from dmp_core.progress import Progress, silent
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages.execute import Inputs, StageResult
from dmp_core.stages.node import EditorStage, PredictStage, TrainStage
from dmp_core.store import Artefact, staged_folder
from dmp_core.store.threads import threads_of_work
from dmp_core.weights.settings import EditorConfig

MODEL = "model"


def run(
    config: EditorStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Render the pairs and train on them, going on where a killed run left off."""
    recipe = EditorRecipe(base=config.base, scenes=config.scenes, fit=config.fit, workers=runtime.workers)
    with staged_folder(out) as folder, threads_of_work(folder) as threads:
        train_editor(recipe, folder / MODEL, folder / ".work", device=runtime.device, progress=progress)
    return StageResult(samples=config.scenes.scenes, details={"steps": config.fit.steps, "threads": threads})


def editor_of(config: TrainStage | PredictStage, inputs: Inputs) -> EditorConfig | None:
    """The editor that a node asks: the one that the DAG made, or the one that its settings name."""
    if "editor" in inputs:
        return EditorConfig(model=str(inputs["editor"].local_path() / MODEL))
    return config.editor
