"""Diverse rendered scenes to train on: rendered in the background, one shard at a time, resumable, reproducible."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.errors import InputError
from dmp_core.modalities import find_modality
from dmp_core.prior.config import PriorConfig, SceneConfig
from dmp_core.processes import unwinding_worker, without_interrupts, worker_pool
from dmp_core.progress import Progress, silent
from dmp_core.prompts.grammar import GrammarGenerator
from dmp_core.prompts.keywords import split_keywords
from dmp_core.render import CLASS_IDS
from dmp_core.store import sample_seed


@dataclass(frozen=True)
class Scenes:
    """All scenes of a part: rgb (N, H, W, 3) uint8, captions, and labels by modality."""

    rgb: NDArray[np.uint8]
    captions: list[str]
    labels: dict[str, NDArray[Any]]
    """As in their files, see `Modality.codes`: (N, H, W[, 3])."""

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(frozen=True)
class Renders:
    """Images with the texts that they were rendered from: rgb (N, H, W, 3) uint8."""

    rgb: NDArray[np.uint8]
    captions: list[str]
    keywords: list[str]
    segmentation: NDArray[np.uint8] | None = None
    """Class ids (N, H, W), of rendered images."""

    def __len__(self) -> int:
        return len(self.captions)


def draw_scene(config: SceneConfig, index: int) -> tuple[str, str, int]:
    """(caption, keyword, seed) of one scene; depends only on (config.seed, index) and the keyword lists."""
    seed = sample_seed(config.seed, f"prior-{index:08d}")
    rng = random.Random(seed)
    sources = list(config.sources.items())
    name, source = rng.choices(sources, weights=[source.share for _, source in sources])[0]
    keyword = rng.choice(_keywords(name, tuple(source.keywords), source.keywords_file))
    return _grammar().caption(keyword, rng), keyword, seed


@cache
def _grammar() -> GrammarGenerator:
    return GrammarGenerator()


@cache
def _keywords(name: str, keywords: tuple[str, ...], file: str | None) -> list[str]:
    return split_keywords(name, keywords, file)


def render_scenes(config: PriorConfig, folder: Path, progress: Progress = silent) -> list[Path]:
    """Render every missing shard; returns the paths of all, in order."""
    render = partial(_render_shard, names=tuple(dict.fromkeys((*config.vae.label_images, CLASS_IDS))))
    return make_shards(config.scenes, folder, render, config.workers, progress)


def make_shards(
    scenes: SceneConfig,
    folder: Path,
    make: Callable[[SceneConfig, int, Path], None],
    workers: int,
    progress: Progress = silent,
) -> list[Path]:
    """Make every missing shard, in separate processes; returns the paths of all, in order.

    make: (scenes, number of the shard's first scene, file to write).
    """
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, scenes.scenes, scenes.scenes_per_shard)
    paths = [folder / f"scenes-{start:06d}.npz" for start in starts]
    missing = [(start, path) for start, path in zip(starts, paths, strict=True) if not path.exists()]
    done = len(paths) - len(missing)
    with worker_pool(workers) as pool:
        with without_interrupts():
            futures = [pool.submit(make, scenes, start, path) for start, path in missing]
        for future in futures:
            future.result()
            done += 1
            progress(min(done * scenes.scenes_per_shard, scenes.scenes), scenes.scenes, "scenes rendered")
    return paths


def save_shard(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns atomically."""
    temporary = path.with_suffix(".tmp.npz")
    arrays: dict[str, Any] = {name: np.stack([np.asarray(v) for v in values]) for name, values in columns.items()}
    with unwinding_worker():
        try:
            np.savez_compressed(temporary, **arrays)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)


def _render_shard(config: SceneConfig, start: int, path: Path, names: Sequence[str]) -> None:
    from dmp_core.render import configure_threads, render_prompt

    configure_threads(1)
    columns: dict[str, list[Any]] = {name: [] for name in ("rgb", "captions", *names)}
    for index in range(start, min(start + config.scenes_per_shard, config.scenes)):
        caption, keyword, seed = draw_scene(config, index)
        rendered = render_prompt(
            caption,
            keyword,
            seed,
            resolution=config.resolution,
            samples_per_pixel=config.samples_per_pixel,
            max_depth=config.max_depth,
        )
        columns["rgb"].append(rendered.rgb)
        columns["captions"].append(caption)
        for name in names:
            columns[name].append(find_modality(name).codes(getattr(rendered, name)))
    save_shard(path, columns)


def load_scenes(config: SceneConfig, folder: Path, held_out: bool) -> Scenes:
    """All scenes rendered so far, of the training part or held out."""
    joined = load_columns(config, folder, held_out)
    labels = {name: column for name, column in joined.items() if name not in ("rgb", "captions", "index")}
    return Scenes(joined["rgb"], [str(c) for c in joined["captions"]], labels)


def load_renders(config: SceneConfig, folder: Path, held_out: bool) -> Renders:
    """As `load_scenes`, for the judge. Raises InputError if the scenes are not those of the recipe."""
    joined = load_columns(config, folder, held_out, ("rgb", "captions", CLASS_IDS))
    captions, keywords = [], []
    for index, stored in zip(joined["index"], joined["captions"], strict=True):
        caption, keyword, _ = draw_scene(config, int(index))
        if caption != str(stored):
            raise InputError(
                f"{folder}: scene {index} is {str(stored)!r}, but the recipe draws {caption!r}; give the recipe "
                "(scenes.seed, scenes.sources) that the scenes were rendered with"
            )
        captions.append(caption)
        keywords.append(keyword)
    return Renders(joined["rgb"], captions, keywords, joined[CLASS_IDS])


def load_columns(
    config: SceneConfig, folder: Path, held_out: bool, names: Sequence[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Columns of the shards made so far, of the training part or held out: `names` (all), and each scene's `index`."""
    parts = list(_shards(config, folder, held_out, names))
    if not parts:
        raise FileNotFoundError(f"{folder}: no rendered scenes; run the part `data` first")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _shards(
    config: SceneConfig, folder: Path, held_out: bool, names: Sequence[str] | None
) -> Iterator[dict[str, NDArray[Any]]]:
    for path in sorted(folder.glob("scenes-??????.npz")):
        start = int(path.stem.removeprefix("scenes-"))
        with np.load(path, allow_pickle=False) as loaded:
            columns = {name: loaded[name] for name in names or loaded.files}
        index = start + np.arange(len(columns["rgb"]))
        chosen = (index % config.hold_out_every == 0) == held_out
        yield {name: values[chosen] for name, values in {**columns, "index": index}.items()}
