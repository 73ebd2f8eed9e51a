"""SDEdit, DDIB, InstructPix2Pix and VISII as compared methods: what generates images makes label images.

All work on latents, see the images at the size that DMP sees them, and decode labels as DMP does. A sample's noise is
drawn from its own seed, so that batches change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmp_core.config.stages import BaseConfig, MethodConfig
from dmp_core.errors import InputError
from dmp_core.methods.diffusion_settings import (
    DDIBConfig,
    DDIBSampling,
    EditSampling,
    HardInstructConfig,
    HardInstructFit,
    LabelPriorFit,
    LearnedInstructConfig,
    LearnedInstructFit,
    SDEditConfig,
    SDEditSampling,
    VisiiConfig,
    VisiiFit,
    VisiiSampling,
)
from dmp_core.methods.protocol import Inference, Needs, Predictor, Problem, TrainingData
from dmp_core.progress import Progress
from dmp_core.store import sample_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from dmp_core.diffusion import DMPPipeline

INSTRUCTION_FILE = "instruction.json"

Generate = Callable[["Tensor", Sequence[str]], "Tensor"]
"""(images (B, 3, h, w) in [0, 1], their keys) → latents of their label images."""


# --------------------------------------------------------------------------------- SDEdit, DDIB
class _LabelPrior:
    """Both fit the prior to label images, and are fitted once: see `LabelPriorFit`."""

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
        from dmp_core.methods.label_prior import fit_label_prior
        from dmp_core.training.base import load_trainable
        from dmp_core.training.precision import within_reach

        config = within_reach(settings.fit, device)
        base = load_trainable(problem.base, config.weights, config.mixed_precision, device)
        labels = data.latent_pairs(config.batch_size, config.seed).columns[1]
        prompts = data.prompts() if config.use_prompt else None
        card = _card(problem, data)
        learnt = fit_label_prior(
            config, base, labels, work, out, prompts=prompts, card=card, device=device, progress=progress
        )
        return learnt.fit.told()

    def load(self, folder: Path, problem: Problem, inference: Inference, *, device: str) -> Predictor:
        import torch

        from dmp_core.diffusion import encode_images
        from dmp_core.methods.label_prior import load_label_prior
        from dmp_core.training.base import load_base

        base = load_base(problem.base, device, getattr(torch, inference.sampling.dtype))
        unet = load_label_prior(base, folder)

        def generate(images: Tensor, keys: Sequence[str]) -> Tensor:
            prompts = [inference.captions[key] for key in keys] if inference.captions else None
            with torch.no_grad():
                return self.translate(base, unet, encode_images(base.vae, images), keys, inference.own, prompts)

        return _predictor(base.vae, problem, inference, generate)

    def translate(
        self, base: DMPPipeline, unet: Any, latents: Tensor, keys: Sequence[str], own: Any, prompts: list[str] | None
    ) -> Tensor:
        """Latents of label images from those of images; own: the method's `inference`."""
        raise NotImplementedError


class Sdedit(_LabelPrior):
    name, title = "sdedit", "SDEdit"
    settings: type[MethodConfig] = SDEditConfig

    def translate(
        self,
        base: DMPPipeline,
        unet: Any,
        latents: Tensor,
        keys: Sequence[str],
        own: SDEditSampling,
        prompts: list[str] | None,
    ) -> Tensor:
        from dmp_core.methods.sdedit import sdedit_latents

        seeds = [sample_seed(own.seed, key) for key in keys]
        return sdedit_latents(base, unet, latents, seeds, own.strength, own.num_steps, prompts)


class Ddib(_LabelPrior):
    name, title = "ddib", "DDIB"
    settings: type[MethodConfig] = DDIBConfig

    def translate(
        self,
        base: DMPPipeline,
        unet: Any,
        latents: Tensor,
        keys: Sequence[str],
        own: DDIBSampling,
        prompts: list[str] | None,
    ) -> Tensor:
        from dmp_core.methods.ddib import ddib_latents

        return ddib_latents(base, unet, latents, own.num_steps, prompts)


# ------------------------------------------------------------------------ InstructPix2Pix, VISII
class HardInstruct:
    """`fit` writes the instruction down."""

    name, title = "ip2p_hard", "InstructPix2Pix (hard)"
    needs: Needs = "nothing"
    settings: type[MethodConfig] = HardInstructConfig

    def fit(
        self,
        settings: HardInstructFit,
        problem: Problem,
        data: TrainingData,
        work: Path,
        out: Path,
        *,
        device: str,
        progress: Progress,
    ) -> dict[str, Any]:
        return _write_instruction(out, settings.instructions.get(problem.modality.name, problem.modality.instruction))

    def load(self, folder: Path, problem: Problem, inference: Inference, *, device: str) -> Predictor:
        return _instructed(_open_editor(problem, inference, device), _read_instruction(folder), problem, inference)


class LearnedInstruct:
    """`fit` writes the token and the instruction that it stands in."""

    name, title = "ip2p_learned", "InstructPix2Pix (learned)"
    needs: Needs = "latents"
    settings: type[MethodConfig] = LearnedInstructConfig

    def fit(
        self,
        settings: LearnedInstructFit,
        problem: Problem,
        data: TrainingData,
        work: Path,
        out: Path,
        *,
        device: str,
        progress: Progress,
    ) -> dict[str, Any]:
        from dmp_core.methods.token import fit_token
        from dmp_core.training.precision import within_reach

        config = within_reach(settings.fit, device)
        editor = _trained_with(problem, config.mixed_precision, device)
        pairs = data.latent_pairs(config.batch_size, config.seed)
        result = fit_token(
            config, editor, pairs, work, out, card=_card(problem, data), device=device, progress=progress
        )
        return result.told() | _write_instruction(out, config.instruction)

    def load(self, folder: Path, problem: Problem, inference: Inference, *, device: str) -> Predictor:
        from dmp_core.methods.token import learned_instruction

        editor = _open_editor(problem, inference, device)
        instruction = learned_instruction(editor, folder, _read_instruction(folder))
        return _instructed(editor, instruction, problem, inference)


class Visii:
    """`fit` writes the instruction's embedding and the noise that goes with it."""

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
        from dmp_core.methods.visii import fit_visii
        from dmp_core.training.precision import within_reach

        config, start = (
            within_reach(settings.fit, device),
            settings.initial_instructions.get(problem.modality.name, problem.modality.instruction),
        )
        editor = _trained_with(problem, config.mixed_precision, device)
        before, after = data.latent_pairs(config.batch_size, config.seed).columns
        card = _card(problem, data)
        result = fit_visii(config, editor, before, after, start, work, out, card=card, device=device, progress=progress)
        return result.told() | {"instruction": start}

    def load(self, folder: Path, problem: Problem, inference: Inference, *, device: str) -> Predictor:
        from dmp_core.methods.visii import load_instruction

        learnt, own = load_instruction(folder), inference.own
        assert isinstance(own, VisiiSampling)
        noise = learnt.noise if own.noise == "same" else None
        return _instructed(_open_editor(problem, inference, device), learnt.embeds, problem, inference, noise)


def _instructed(
    editor: Any, instruction: str | Tensor, problem: Problem, inference: Inference, noise: Tensor | None = None
) -> Predictor:
    """Ask the editor the same of every image."""
    from dmp_core.methods.instruct import edit_latents

    own = inference.own
    assert isinstance(own, EditSampling)

    def generate(images: Tensor, keys: Sequence[str]) -> Tensor:
        seeds = [sample_seed(own.seed, key) for key in keys]
        scales = own.guidance_scale, own.image_guidance_scale
        return edit_latents(editor, images, instruction, seeds, own.num_steps, *scales, noise=noise)

    return _predictor(editor.vae, problem, inference, generate)


def _open_editor(problem: Problem, inference: Inference, device: str) -> Any:
    import torch

    from dmp_core.training.base import load_editor

    assert problem.editor is not None, "its settings say `reads_editor`"
    return load_editor(problem.editor, device, getattr(torch, inference.sampling.dtype))


def _trained_with(problem: Problem, mixed_precision: str, device: str) -> Any:
    """The editor, to learn with from the training set's latents, which are the base model's."""
    from dmp_core.training.base import DTYPES, load_editor

    assert problem.editor is not None, "its settings say `reads_editor`"
    editor = load_editor(problem.editor, device, DTYPES[mixed_precision])
    _check_autoencoder(editor, problem.base, device)
    return editor


def _check_autoencoder(editor: Any, base: BaseConfig, device: str) -> None:
    """Raise InputError unless both make the same latents of an image."""
    import torch

    from dmp_core.diffusion import encode_images
    from dmp_core.training.base import load_vae

    vae = load_vae(base, device, editor.vae.dtype)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = (encode_images(each, image).float() for each in (vae, editor.vae))
    if ours.shape != theirs.shape or (ours - theirs).norm() > 0.02 * ours.norm():
        raise InputError(
            f"editor.model: its autoencoder is not that of base.model ({base.model}), whose latents it would learn "
            "from; name the editor that was made from this base, or leave it to the run with editor.model=null"
        )


def _write_instruction(folder: Path, instruction: str) -> dict[str, Any]:
    (folder / INSTRUCTION_FILE).write_text(json.dumps({"instruction": instruction}) + "\n")
    return {"instruction": instruction}


def _read_instruction(folder: Path) -> str:
    file = folder / INSTRUCTION_FILE
    try:
        return str(json.loads(file.read_text())["instruction"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: no instruction here ({error}); fit the method first") from None


# -------------------------------------------------------------------------------------- shared
def _predictor(vae: Any, problem: Problem, inference: Inference, generate: Generate) -> Predictor:
    from dmp_core.training.predict import decode_labels, working_images

    def predict(images: NDArray[Any], keys: Sequence[str]) -> NDArray[Any]:
        latents = generate(working_images(vae, images, inference.resolution), keys)
        return decode_labels(vae, latents, problem.modality, images.shape[1:3], problem.code, problem.classes)

    return predict


def _card(problem: Problem, data: TrainingData) -> dict[str, Any]:
    """What a fit is about, beside its settings."""
    return {
        "task": problem.modality.name,
        "base": problem.base.model,
        "depth_scale": problem.code.depth_scale,
        "palette": problem.code.palette,
        "data": dict(data.fingerprints),
    }
