"""The mini editor: InstructPix2Pix at the size of the mini prior, trained on rendered pairs of before and after.

Parts, each of which resumes: `data` renders the pairs, `train` fits the widened U-Net to them,
`export` writes the folder that `load_editor` opens.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import PositiveInt, ValidationError

from dmp_core.methods.shared.settings import InstructConfig
from dmp_core.overrides import layered, merge
from dmp_core.prior.config import SceneConfig
from dmp_core.prior.data import draw_scene, load_columns, make_shards, save_shard
from dmp_core.progress import Progress, silent
from dmp_core.resources import manifest_path
from dmp_core.settings import Settings, raise_readable, read_yaml
from dmp_core.weights.settings import BaseConfig

if TYPE_CHECKING:
    from dmp_core.training.latents import LatentColumn

PARTS = ("data", "train", "export")
RECIPE = "editor_mini.yaml"


class EditorTraining(Settings):
    """The recipe in the DAG, where base model and workers are set for all stages."""

    scenes: SceneConfig
    """The rendered pairs; `scenes` is their number."""
    fit: InstructConfig = InstructConfig()


class EditorRecipe(EditorTraining):
    """The whole recipe."""

    base: BaseConfig = BaseConfig(model="shipped:mini")
    """The text-to-image model that it starts from."""
    workers: PositiveInt = 2
    """Processes that render."""


def recipe_with(changes: Mapping[str, Any]) -> EditorTraining:
    """The shipped recipe with these changes. Raises InputError naming the field under `editor.recipe`."""
    shipped = read_yaml(manifest_path(RECIPE))
    settings = {name: shipped[name] for name in EditorTraining.model_fields}
    try:
        return EditorTraining.model_validate(merge(settings, dict(changes)))
    except ValidationError as error:
        raise_readable(error, "editor.recipe")


def load_recipe(file: str | Path | None = None, overrides: list[str] | None = None) -> EditorRecipe:
    """`data_manifests/editor_mini.yaml` < file < `a.b=value` overrides. Raises InputError naming the field."""
    settings, source = layered(read_yaml(manifest_path(RECIPE)), RECIPE, file, overrides)
    try:
        return EditorRecipe.model_validate(settings)
    except ValidationError as error:
        raise_readable(error, source)


def train_editor(
    recipe: EditorRecipe,
    out: Path,
    work: Path,
    *,
    parts: Sequence[str] = PARTS,
    device: str = "auto",
    progress: Progress = silent,
) -> Path:
    """Make the editor, end to end or only `parts` of it.

    out: the finished folder in diffusers format. work: pairs, checkpoints and logs; kept, and resumed from.
    """
    if "data" in parts:
        make_shards(recipe.scenes, work / "pairs", _render_shard, recipe.workers, progress)
    if "train" in parts:
        _train(recipe, work, device, progress)
    if "export" in parts:
        _export(work / "editor", out)
    return out


def _render_shard(config: SceneConfig, start: int, path: Path) -> None:
    from dmp_core.render import configure_threads
    from dmp_core.render.edits import render_edit

    configure_threads(1)
    columns: dict[str, list[Any]] = {name: [] for name in ("before", "after", "instructions", "kinds")}
    for index in range(start, min(start + config.scenes_per_shard, config.scenes)):
        caption, keyword, seed = draw_scene(config, index)
        pair = render_edit(
            caption,
            keyword,
            seed,
            resolution=config.resolution,
            samples_per_pixel=config.samples_per_pixel,
            max_depth=config.max_depth,
        )
        columns["before"].append(pair.before.rgb)
        columns["after"].append(pair.after.rgb)
        columns["instructions"].append(pair.instruction)
        columns["kinds"].append(pair.kind)
    save_shard(path, {"rgb": columns.pop("before"), **columns})


def _train(recipe: EditorRecipe, work: Path, device: str, progress: Progress) -> None:
    from dmp_core.methods.shared.editing import fit_instruct
    from dmp_core.training.data import LatentPairs
    from dmp_core.weights.load import choose_device, load_base

    device = choose_device(device)
    base = load_base(recipe.base, device)
    before, after, instructions = latent_pairs(recipe.scenes, base.vae, work / "pairs", held_out=False)
    fit_instruct(
        recipe.fit,
        base,
        LatentPairs(before, after, recipe.fit.batch_size, recipe.fit.seed),
        instructions,
        work / "fit",
        work / "editor",
        card={"scenes": recipe.scenes.model_dump(mode="json")},
        device=device,
        progress=progress,
    )


def latent_pairs(
    scenes: SceneConfig, vae: Any, folder: Path, held_out: bool
) -> tuple[LatentColumn, LatentColumn, list[str]]:
    """Latents before and after, plain and mirrored (instructions mention no side), and the instructions."""
    from dmp_core.diffusion.labels import encode
    from dmp_core.images import image_to_vae
    from dmp_core.training.latents import LatentColumn

    columns = load_columns(scenes, folder, held_out)
    keys = tuple(f"edit-{number:08d}" for number in range(len(columns["instructions"])))

    def column(name: str, images: Any) -> LatentColumn:
        pixels = image_to_vae(np.asarray(images))
        return LatentColumn(name, keys, encode(vae, pixels, 64), encode(vae, pixels.flip(-1), 64))

    texts = [str(text) for text in columns["instructions"]]
    return column("before", columns["rgb"]), column("after", columns["after"]), texts


def _export(finished: Path, out: Path) -> None:
    """In half precision, as shipped; replaces `out` at the end."""
    from dmp_core.prior.export import save_halved
    from dmp_core.weights.load import load_editor
    from dmp_core.weights.settings import EditorConfig

    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    save_halved(load_editor(EditorConfig(model=str(finished))), fresh)
    shutil.copyfile(finished / "loss.csv", fresh / "loss.csv")
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)
