"""fitted method + images → predictions in the label's own encoding; or the VAE ceiling of the labels"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import SerializeAsAny

from dmp_core.config.pipeline import PipelineConfig
from dmp_core.dataset.reading import editor_of, read_prompts, same_size_batches
from dmp_core.diffusion.decoder import FIELD as DECODER
from dmp_core.diffusion.settings import SamplingConfig
from dmp_core.errors import NotFinite
from dmp_core.evaluation.colours import Space
from dmp_core.memory import Batches
from dmp_core.methods.protocol import Inference, Predictor, Problem
from dmp_core.methods.registry import find_method
from dmp_core.modalities import Modality
from dmp_core.modalities.base import DecodedClasses
from dmp_core.names import Precision
from dmp_core.progress import Progress, silent
from dmp_core.runtime import RuntimeConfig
from dmp_core.settings import Settings, since
from dmp_core.stages.base import (
    Coded,
    Draft,
    Inputs,
    ModelUse,
    OfModality,
    StageKind,
    StageResult,
    base_hash,
    code_of,
    decoder_of,
    editor_uses,
    named_editor,
    of_modality,
    other_sources,
    share,
)
from dmp_core.store import Artefact, Sample, ShardPlan, Skipped, shard_plans, shard_reader, write_shards
from dmp_core.store.attempts import overlapped
from dmp_core.weights.prompt_limit import cut_prompts
from dmp_core.weights.settings import BaseConfig, EditorConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

Batch = Sequence[tuple[str, "NDArray[Any]"]]
"""(key, array) of consecutive samples of one size."""


CEILING = "ceiling"
"""The row of labels that were encoded and decoded by the VAE."""
KIND = StageKind(
    "predict",
    version=2,
    typical=(0.02, 10_000),
    on_a_gpu=(0.15, 250_000),
    folder="predictions",
    sharded=True,
    chunked=True,
)


class PredictStage(OfModality, Coded):
    split: str
    row: str
    """A method's name, or `ceiling`: the label itself, encoded and decoded by the VAE."""
    base: BaseConfig
    base_hash: str
    sampling: SamplingConfig
    resolution: int | None
    colour_space: Space = since("rgb")
    """Only for segmentation, as is the next one."""
    decoded_classes: DecodedClasses = since("seen")
    inference: SerializeAsAny[Settings] | None = since(None)
    """The method's own settings for inference."""
    editor: EditorConfig | None = since(None)
    """As in `TrainStage`."""
    editor_hash: str | None = since(None)
    decoder_hash: str | None = since(None)
    """Digest of `sampling.decoder`."""

    made_with: ClassVar[tuple[str, ...]] = ("adapter", "editor", "prompts")

    def uses(self) -> Iterator[ModelUse]:
        if self.editor is None:
            yield ModelUse("base.model", self.base.model, self.base.revision)
        yield from editor_uses(self.editor)
        if self.sampling.decoder is not None:
            yield ModelUse(DECODER, self.sampling.decoder)

    @property
    def on_device(self) -> bool:
        return True

    @property
    def shared(self) -> dict[str, Any]:
        """The fitted method, or, of a ceiling, what encodes and decodes."""
        if self.row == CEILING:
            return self.model_dump(mode="json", include={"row", "base", "base_hash", "decoder_hash"})
        return self.model_dump(mode="json", exclude={"split"})

    @property
    def passes(self) -> int:
        """U-Net passes per image."""
        if self.row == CEILING:
            return 0
        return getattr(self.sampling if self.row == "dmp" else self.inference, "passes", 1)


def add(draft: Draft, modality: Modality) -> None:
    """Predictions of every split except the training split; and the VAE ceiling for splits with labels to score."""
    config, name, method = draft.config, modality.name, draft.config.train.method
    adapter = draft[f"train/{name}-{config.train.fitted.method}"]
    settings: dict[str, Any] = {
        **of_modality(config, modality),
        **code_of(config, modality),
        "row": method,
        "base": config.base,
        "base_hash": base_hash(config),
        "sampling": config.sampling.for_modality(modality),
        "resolution": config.latents.resolution_of(name),
        **_decoding(config, modality),
        "inference": config.train.inference,
        **named_editor(config),
        **decoder_of(config),
    }
    for split in (split for split in config.splits if split != "train"):
        stage = PredictStage(split=split, **settings)
        images, labels = draft[f"images/{split}"], draft.get(f"labels/{split}-{name}")
        inputs = {"adapter": adapter, "images": images} | draft.made_editor()
        if config.sampling.use_prompt:
            inputs["prompts"] = draft[f"prompts/{split}"]
        draft.add(KIND, f"{split}-{name}-{method}", stage, inputs, images.samples)
        if labels and config.splits[split].scored:
            for source in other_sources(config):
                other = stage.model_copy(update={"sampling": stage.sampling.model_copy(update={"source": source})})
                row = f"{split}-{name}-{method}"
                draft.add(KIND, row, other, inputs, images.samples, alias=f"{row}-{source}")
            own = {"inference": None, "editor": None, "editor_hash": None, "decoded_classes": "seen"}
            sampling = SamplingConfig(decoder=config.sampling.decoder)
            limit = stage.model_copy(update={"row": CEILING, "sampling": sampling} | own)
            draft.add(KIND, f"{split}-{name}-{CEILING}", limit, {"labels": labels}, images.samples)


def _decoding(config: PipelineConfig, modality: Modality) -> dict[str, Any]:
    """How colours become classes, for modalities that use the configuration's palette."""
    if "palette" not in modality.encoding(config.latents.code):
        return {}
    return {name: getattr(config.latents, name) for name in ("colour_space", "decoded_classes")}


def run(
    config: PredictStage,
    inputs: Inputs,
    out: Artefact,
    *,
    runtime: RuntimeConfig,
    shards: Iterable[int] | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Predict one modality on one split, shard by shard, in batches."""
    from dmp_core.weights.load import choose_device

    of_labels, modality = config.row == CEILING, config.modality
    column, source = (modality, inputs["labels"]) if of_labels else (None, inputs["images"])
    read, plans = shard_reader(source), shard_plans(source)

    def encoded(key: str, label: NDArray[Any]) -> Sample:
        return {"__key__": key, modality.member: modality.encode(label)}

    fix = "set sampling.dtype=float16, a smaller latents.resolution, or runtime.device=cpu"
    what, device = f"{out.stage}/{out.name}", choose_device(runtime.device)
    batches = Batches(config.sampling.batch_size, what, device, fix, item="one image")
    with _predicted(config, inputs, runtime, batches) as (predictor, predicted):

        def produce(plan: ShardPlan) -> Iterator[Sample | Skipped]:
            return overlapped(
                same_size_batches(read(plan.index), column, config.sampling.batch_size),
                predicted,
                encoded,
                opened=predictor,
                skips=runtime.on_bad_sample.skips,
                workers=runtime.workers,
            )

        bounds = runtime.on_bad_sample.bounds
        files = write_shards(
            out, plans, produce, only=shards, threaded=True, batches=batches, bounds=bounds, progress=progress
        )
    prompted = config.sampling.use_prompt and not of_labels
    cut = cut_prompts(config.base, read_prompts(inputs["prompts"])["prompt"]) if prompted else {}
    return StageResult(samples=sum(plan.planned for plan in plans), files=files, details=cut)


@contextmanager
def _predicted(
    config: PredictStage, inputs: Inputs, runtime: RuntimeConfig, batches: Batches
) -> Iterator[tuple[Callable[[], Predictor], Callable[[Batch], list[NDArray[Any]]]]]:
    """Inside, a function that loads the predictor, and one that predicts a batch as memory and precision allow."""
    from dmp_core.finite import finite_predictions
    from dmp_core.weights.load import load_decoder, load_vae

    of_labels, device = config.row == CEILING, batches.device

    def load() -> AbstractContextManager[Any]:
        with batches.loading():
            if not of_labels:
                return nullcontext(_fitted(config, inputs, device))
            vae = load_vae(config.base, device)
            return nullcontext((vae, load_decoder(config.sampling.decoder, vae)))

    @cache
    def in_float32() -> Predictor:
        with batches.loading():
            return _fitted(config, inputs, device, "float32")

    def labelled(batch: Batch, by: Callable[[], Predictor]) -> NDArray[Any]:
        labels = by()(np.stack([array for _, array in batch]), [key for key, _ in batch])
        check_labels(labels)
        return labels

    with share(KIND, config, inputs, runtime, load) as model:

        def predictor() -> Predictor:
            return _ceiling(config, *model()) if of_labels else model()

        own = partial(labelled, by=predictor)
        again = own if of_labels or config.sampling.dtype == "float32" else partial(labelled, by=in_float32)

        def finite(batch: Batch) -> list[NDArray[Any]]:
            return finite_predictions(batch, [key for key, _ in batch], own, again)

        yield predictor, lambda batch: [label for part in batches(batch, finite) for label in part]


def check_labels(labels: NDArray[Any]) -> None:
    """Raise `NotFinite` for third-party methods that do not check their network's output."""
    for index, label in enumerate(labels):
        if not np.isfinite(label).all():
            raise NotFinite(index, "the prediction holds NaN or infinity; is the fitted method damaged?")


def _fitted(config: PredictStage, inputs: Inputs, device: str, dtype: Precision | None = None) -> Predictor:
    """dtype: instead of the settings' own."""
    captions: dict[str, str] = {}
    if config.sampling.use_prompt:
        table = read_prompts(inputs["prompts"])
        captions = dict(zip(table["key"], table["prompt"], strict=True))
    classes = inputs["adapter"].published().details.get("classes")
    sampling = config.sampling.model_copy(update={"dtype": dtype or config.sampling.dtype})
    return find_method(config.row).load(
        inputs["adapter"].local_path(),
        Problem(
            config.modality,
            config.base,
            config.code,
            editor_of(config.editor, inputs),
            tuple(classes) if classes else None,
        ),
        Inference(sampling, config.resolution, captions, config.inference),
        device=device,
    )


def _ceiling(config: PredictStage, vae: Any, decoder: Any) -> Predictor:
    from dmp_core.diffusion.labels import vae_ceiling

    return lambda labels, keys: vae_ceiling(
        vae,
        labels,
        config.modality,
        code=config.code,
        resolution=config.resolution,
        decoder=decoder,
    )
