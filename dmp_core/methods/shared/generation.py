"""Shared by the methods that generate label images with a diffusion model.

All work on latents, use DMP's working size, and decode labels as DMP does. A sample's noise is
drawn from its own seed, so that the batch size does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmp_core.errors import InputError
from dmp_core.methods.protocol import Inference, Needs, Predictor, Problem, TrainingData
from dmp_core.methods.shared.settings import EditSampling, LabelPriorFit
from dmp_core.progress import Progress
from dmp_core.store import sample_seed
from dmp_core.weights.settings import BaseConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from dmp_core.diffusion import DMPPipeline


Generate = Callable[["Tensor", Sequence[str]], "Tensor"]
"""(images (B, 3, h, w) in [0, 1], their keys) → latents of their label images."""


class LabelPriorMethod:
    """SDEdit and DDIB: both use one fit of the prior to label images, see `LabelPriorFit`."""

    needs: Needs = "latents"

    def fit(
        self,
        settings: LabelPriorFit,
        problem: Problem,
        data: TrainingData,
        work: Path,
        out: Path,
        *,
        device: str,
        progress: Progress,
    ) -> dict[str, Any]:
        from dmp_core.methods.shared.label_prior import fit_label_prior
        from dmp_core.training.precision import without_emulated_bf16
        from dmp_core.weights.load import load_trainable

        config = without_emulated_bf16(settings.fit, device)
        base = load_trainable(problem.base, config.weights, config.mixed_precision, device)
        labels = data.latent_pairs(config.batch_size, config.seed).columns[1]
        prompts = data.prompts() if config.use_prompt else None
        card = card_of(problem, data)
        learnt = fit_label_prior(
            config, base, labels, work, out, prompts=prompts, card=card, device=device, progress=progress
        )
        return learnt.summary()

    def load(self, folder: Path, problem: Problem, inference: Inference, *, device: str) -> Predictor:
        import torch

        from dmp_core.diffusion import encode_images
        from dmp_core.methods.shared.label_prior import load_label_prior
        from dmp_core.weights.load import load_base

        base = load_base(problem.base, device, getattr(torch, inference.sampling.dtype))
        unet = load_label_prior(base, folder)

        def generate(images: Tensor, keys: Sequence[str]) -> Tensor:
            prompts = [inference.captions[key] for key in keys] if inference.captions else None
            with torch.no_grad():
                return self.translate(base, unet, encode_images(base.vae, images), keys, inference.own, prompts)

        return predictor_of(base.vae, problem, inference, generate)

    def translate(
        self, base: DMPPipeline, unet: Any, latents: Tensor, keys: Sequence[str], own: Any, prompts: list[str] | None
    ) -> Tensor:
        """Latents of label images from those of images; own: the method's `inference`."""
        raise NotImplementedError


def instructed(
    editor: Any, instruction: str | Tensor, problem: Problem, inference: Inference, noise: Tensor | None = None
) -> Predictor:
    """Edit every image with the same instruction."""
    from dmp_core.methods.shared.editing import edit_latents

    own = inference.own
    assert isinstance(own, EditSampling)

    def generate(images: Tensor, keys: Sequence[str]) -> Tensor:
        seeds = [sample_seed(own.seed, key) for key in keys]
        scales = own.guidance_scale, own.image_guidance_scale
        return edit_latents(editor, images, instruction, seeds, own.num_steps, *scales, noise=noise)

    return predictor_of(editor.vae, problem, inference, generate)


def open_editor(problem: Problem, inference: Inference, device: str) -> Any:
    import torch

    from dmp_core.weights.load import load_editor

    assert problem.editor is not None, "its settings say `reads_editor`"
    return load_editor(problem.editor, device, getattr(torch, inference.sampling.dtype))


def editor_to_train_with(problem: Problem, mixed_precision: str, device: str) -> Any:
    """The editor, for training on the training set's latents, which are the base model's."""
    from dmp_core.weights.load import DTYPES, load_editor

    assert problem.editor is not None, "its settings say `reads_editor`"
    editor = load_editor(problem.editor, device, DTYPES[mixed_precision])
    _check_autoencoder(editor, problem.base, device)
    return editor


def _check_autoencoder(editor: Any, base: BaseConfig, device: str) -> None:
    """Raise InputError unless both encode an image to the same latents."""
    import torch

    from dmp_core.diffusion import encode_images
    from dmp_core.weights.load import load_vae

    vae = load_vae(base, device, editor.vae.dtype)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = (encode_images(each, image).float() for each in (vae, editor.vae))
    if ours.shape != theirs.shape or (ours - theirs).norm() > 0.02 * ours.norm():
        raise InputError(
            f"editor.model: its autoencoder is not that of base.model ({base.model}), whose latents it would learn "
            "from; choose the editor that was made from this base, or let the run train one with editor.model=null"
        )


def predictor_of(vae: Any, problem: Problem, inference: Inference, generate: Generate) -> Predictor:
    from dmp_core.diffusion.labels import decode_labels, working_images
    from dmp_core.weights.load import load_decoder

    decoder = load_decoder(inference.sampling.decoder, vae) or vae

    def predict(images: NDArray[Any], keys: Sequence[str]) -> NDArray[Any]:
        latents = generate(working_images(vae, images, inference.resolution) / 2 + 0.5, keys)
        return decode_labels(decoder, latents, problem.modality, images.shape[1:3], problem.code, problem.classes)

    return predict


def card_of(problem: Problem, data: TrainingData) -> dict[str, Any]:
    """What identifies a fit, besides its settings."""
    return {
        "task": problem.modality.name,
        "base": problem.base.model,
        "depth_scale": problem.code.depth_scale,
        "palette": problem.code.palette,
        "data": dict(data.fingerprints),
    }
