"""DMP itself: the pre-trained U-Net fine-tuned by deterministic diffusion (paper, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmp_core.diffusion.settings import SamplingConfig
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.methods.protocol import Inference, Needs, Predictor, Problem, TrainingData
from dmp_core.methods.settings import MethodConfig
from dmp_core.progress import Progress
from dmp_core.scoring.registry import DMP as TITLE

if TYPE_CHECKING:
    from numpy.typing import NDArray


class DMP:
    """`fit` writes an adapter folder; see `dmp_core.methods.dmp.finetune`."""

    name = "dmp"
    title = TITLE
    needs: Needs = "latents"
    settings: type[MethodConfig] = TrainConfig

    def fit(
        self,
        settings: TrainConfig,
        problem: Problem,
        data: TrainingData,
        work: Path,
        out: Path,
        *,
        device: str,
        progress: Progress,
    ) -> dict[str, Any]:
        from dmp_core.methods.dmp.finetune import finetune, make_card
        from dmp_core.training.precision import without_emulated_bf16
        from dmp_core.weights.load import load_trainable

        settings = without_emulated_bf16(settings, device)
        base = load_trainable(problem.base, settings.weights, settings.mixed_precision, device)
        default = SamplingConfig()
        card = make_card(
            problem.modality,
            problem.base.model,
            code=problem.code,
            classes=problem.classes,
            class_shares=problem.class_shares,
            sampling={"source": default.source, "num_steps": settings.num_timesteps or default.num_steps},
            data=data.fingerprints,
        )
        pairs = data.latent_pairs(settings.batch_size, settings.seed)
        prompts = data.prompts() if settings.use_prompt else None
        labels = data.label_images(pairs.pixels(base.vae)) if settings.reads_labels else None
        result = finetune(
            settings, base, pairs, work, out, card=card, prompts=prompts, labels=labels, device=device,
            progress=progress,
        )  # fmt: skip
        return result.summary()

    def load(self, folder: Path, problem: Problem, inference: Inference, *, device: str) -> Predictor:
        from dmp_core.methods.dmp.predict import load_predictor, predict_batch

        pipeline = load_predictor(
            problem.base, folder, device, inference.sampling.dtype, modality=problem.modality,
            code=problem.code, compiled=inference.sampling.compile, decoder=inference.sampling.decoder,
        )  # fmt: skip

        def predict(images: NDArray[Any], keys: Sequence[str]) -> NDArray[Any]:
            return predict_batch(
                pipeline,
                images,
                problem.modality,
                inference.sampling,
                code=problem.code,
                resolution=inference.resolution,
                prompts=[inference.captions[key] for key in keys] if inference.captions else None,
            )

        return predict
