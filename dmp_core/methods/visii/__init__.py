"""VISII (Nguyen et al. 2023): an instruction inverted from pairs of before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dmp_core.methods.protocol import Inference, Needs, Predictor, Problem, TrainingData
from dmp_core.methods.settings import MethodConfig
from dmp_core.methods.shared.generation import card_of, editor_to_train_with, instructed, open_editor
from dmp_core.methods.visii.settings import VisiiConfig, VisiiFit, VisiiSampling
from dmp_core.progress import Progress


class Visii:
    """`fit` writes the instruction's embedding and the noise that belongs to it."""

    name, title = "visii", "VISII"
    needs: Needs = "latents"
    settings: type[MethodConfig] = VisiiConfig

    def fit(
        self,
        settings: VisiiFit,
        problem: Problem,
        data: TrainingData,
        work: Path,
        out: Path,
        *,
        device: str,
        progress: Progress,
    ) -> dict[str, Any]:
        from dmp_core.methods.visii.algorithm import fit_visii
        from dmp_core.training.precision import without_emulated_bf16

        config, start = (
            without_emulated_bf16(settings.fit, device),
            settings.initial_instructions.get(problem.modality.name, problem.modality.instruction),
        )
        editor = editor_to_train_with(problem, config.mixed_precision, device)
        before, after = data.latent_pairs(config.batch_size, config.seed).columns
        card = card_of(problem, data)
        result = fit_visii(config, editor, before, after, start, work, out, card=card, device=device, progress=progress)
        return result.summary() | {"instruction": start}

    def load(self, folder: Path, problem: Problem, inference: Inference, *, device: str) -> Predictor:
        from dmp_core.methods.visii.algorithm import load_instruction

        learnt, own = load_instruction(folder), inference.own
        assert isinstance(own, VisiiSampling)
        noise = learnt.noise if own.noise == "same" else None
        return instructed(open_editor(problem, inference, device), learnt.embeds, problem, inference, noise)
