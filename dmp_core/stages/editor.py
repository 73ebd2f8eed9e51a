"""a text-to-image model + rendered pairs of before and after → the model that edits by instructions: `model/`"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from dmp_core.dataset.reading import EDITOR_FOLDER
from dmp_core.keywords.former import meanings
from dmp_core.methods.shared.settings import InstructConfig
from dmp_core.modalities import Modality
from dmp_core.prior.config import SceneConfig
from dmp_core.prior.editor import EditorRecipe, recipe_with, train_editor
from dmp_core.progress import Progress, silent
from dmp_core.prompts.keywords import split_keywords
from dmp_core.runtime import RuntimeConfig
from dmp_core.settings import since
from dmp_core.stages.base import Draft, Inputs, ModelUse, StageKind, StageResult, StageSettings, base_hash
from dmp_core.store import Artefact, staged_folder
from dmp_core.store.threads import threads_of_work
from dmp_core.weights.settings import BaseConfig

KIND = StageKind("editor", version=1, typical=(0.4, 10_000), on_a_gpu=(0.5, 500_000), folder="editors")


class EditorStage(StageSettings):
    base: BaseConfig
    base_hash: str
    scenes: SceneConfig
    fit: InstructConfig
    meanings: int | None = since(None)
    """As in `PromptsStage`."""

    def uses(self) -> Iterator[ModelUse]:
        yield ModelUse("base.model", self.base.model, self.base.revision)


def add(draft: Draft, modality: Modality) -> None:
    """For methods that edit by instructions, unless the settings name an editor; one serves all modalities."""
    config = draft.config
    if config.train.reads_editor and config.editor.model is None and not draft.made_editor():
        recipe = recipe_with(config.editor.recipe)
        sources = [split_keywords(name, s.keywords, s.keywords_file) for name, s in recipe.scenes.sources.items()]
        stage = EditorStage(
            base=config.base,
            base_hash=base_hash(config),
            scenes=recipe.scenes,
            fit=recipe.fit,
            meanings=meanings(chain.from_iterable(sources)),
        )
        draft.add(KIND, "instruct", stage, samples=recipe.scenes.scenes)


def run(
    config: EditorStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Render the pairs and train on them; resumes a killed run."""
    from dmp_core.training.bucket import shared_checkpoints

    recipe = EditorRecipe(base=config.base, scenes=config.scenes, fit=config.fit, workers=runtime.workers)
    with (
        staged_folder(out) as folder,
        shared_checkpoints(out, folder, progress) as reported,
        threads_of_work(folder) as threads,
    ):
        train_editor(recipe, folder / EDITOR_FOLDER, folder / ".work", device=runtime.device, progress=reported)
    return StageResult(samples=config.scenes.scenes, details={"steps": config.fit.steps, "threads": threads})
