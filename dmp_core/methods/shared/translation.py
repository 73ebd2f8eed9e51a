"""Shared by SPADE and DRIT++ as methods: pairs of images in, a folder with settings and weights out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmp_core.images import image_to_vae
from dmp_core.methods.protocol import Inference, Needs, Predictor, Problem, TrainingData
from dmp_core.methods.settings import MethodConfig
from dmp_core.methods.shared.settings import AdversarialConfig
from dmp_core.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmp_core.methods.shared.adversarial import Translator

Algorithm = tuple[Callable[..., None], "type[Translator]"]
"""The function that fits the network, and the class that loads it."""


class TranslationMethod:
    """Base of both: pairs of images in, a folder with settings and weights out."""

    needs: Needs = "images"
    settings: type[MethodConfig]
    network: type[AdversarialConfig]
    """The settings of the network itself."""

    def algorithm(self) -> Algorithm:
        """Imported on first use: it needs torch."""
        raise NotImplementedError

    def fit(
        self,
        settings: Any,
        problem: Problem,
        data: TrainingData,
        work: Path,
        out: Path,
        *,
        device: str,
        progress: Progress,
    ) -> dict[str, Any]:
        known = settings.model_dump(include=set(self.network.model_fields))
        train, model = self.algorithm()
        train(data.image_pairs(work), self.network(**known), work, device=device, progress=progress)
        shutil.copytree(work / "model", out, dirs_exist_ok=True)
        shutil.copyfile(work / "loss.csv", out / "loss.csv")
        kept = model.load(out)
        return {"steps": settings.steps, "trainable_parameters": sum(p.numel() for p in kept.parameters())}

    def load(self, folder: Path, problem: Problem, inference: Inference, *, device: str) -> Predictor:
        model = self.algorithm()[1].load(folder, device)

        def predict(images: NDArray[Any], keys: Sequence[str]) -> NDArray[Any]:
            labels = model(image_to_vae(images).to(device)).float().cpu()
            return problem.modality.from_image(labels, problem.code, classes=problem.classes)

        return predict
