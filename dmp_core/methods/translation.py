"""SPADE and DRIT++ as compared methods: trained on the training set's images, from scratch (paper, section 4.1)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dmp_core.config.stages import MethodConfig
from dmp_core.labelers.encoding import image_to_vae
from dmp_core.methods.adversarial import MODEL, AdversarialConfig, Translator
from dmp_core.methods.drit import DritConfig, DritModel, fit_drit
from dmp_core.methods.protocol import Inference, Needs, Predictor, Problem, TrainingData
from dmp_core.methods.spade import SpadeConfig, SpadeModel, fit_spade
from dmp_core.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SpadeSettings(SpadeConfig, MethodConfig):
    method: Literal["spade"] = "spade"

    @property
    def draws(self) -> int:
        return self.steps * self.batch_size


class DritSettings(DritConfig, MethodConfig):
    method: Literal["drit"] = "drit"

    @property
    def draws(self) -> int:
        return self.steps * self.batch_size


class _Translation:
    """What both have in common as methods: pairs of pictures in, a folder with settings and weights out."""

    needs: Needs = "images"
    settings: type[MethodConfig]
    network: type[AdversarialConfig]
    """The settings that the network itself knows."""
    model: type[Translator]
    train: Any

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
        type(self).train(data.image_pairs(), self.network(**known), work, device=device, progress=progress)
        shutil.copytree(work / MODEL, out, dirs_exist_ok=True)
        shutil.copyfile(work / "loss.csv", out / "loss.csv")
        kept = self.model.load(out)
        return {"steps": settings.steps, "trainable_parameters": sum(p.numel() for p in kept.parameters())}

    def load(self, folder: Path, problem: Problem, inference: Inference, *, device: str) -> Predictor:
        model = self.model.load(folder, device)

        def predict(images: NDArray[Any], keys: Sequence[str]) -> NDArray[Any]:
            labels = model(image_to_vae(images).to(device)).float().cpu()
            return problem.modality.from_image(labels, problem.code, classes=problem.classes)

        return predict


class Spade(_Translation):
    name, title, settings = "spade", "SPADE", SpadeSettings
    network, model, train = SpadeConfig, SpadeModel, staticmethod(fit_spade)


class Drit(_Translation):
    name, title, settings = "drit", "DRIT++", DritSettings
    network, model, train = DritConfig, DritModel, staticmethod(fit_drit)
