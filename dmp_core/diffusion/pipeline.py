"""DMP as a diffusers pipeline: images in, dense predictions out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from dmp_core.diffusion.adapters import load_adapter, note_identity
from dmp_core.diffusion.card import AdapterCard
from dmp_core.diffusion.decoder import check_decoder
from dmp_core.diffusion.labels import predict_labels
from dmp_core.diffusion.latents import decode_latents, depth_from_decoded, downscale_factor, encode_images, working_size
from dmp_core.diffusion.sampler import Denoiser, sample, unet_denoiser
from dmp_core.diffusion.schedule import Schedule
from dmp_core.diffusion.shipped import shipped_folder
from dmp_core.diffusion.text import tokenise
from dmp_core.errors import InputError
from dmp_core.finite import check_outputs, check_parts
from dmp_core.images import image_to_vae, resize_image, to_rgb
from dmp_core.modalities import Code
from dmp_core.names import Prediction, Source

Images = Image.Image | Sequence[Image.Image] | Tensor
Resampling = Literal["antialias", "dmp_compat", "dmp_compat_aliased"]
OutputType = Literal["pt", "np", "pil", "latent", "label"]
Mode = Literal["RGB", "F"]
Encode = Callable[[Tensor], Tensor]
Resolution = int | tuple[int, int] | Literal["native", "input"]

_BASE_FILE = "model_index.json"
_NETWORKS = ("vae", "text_encoder", "unet")
_LARGEST = 16384
"""Limit on a side of the networks' input, pixels."""


@dataclass
class DMPOutput(BaseOutput):
    """images: the predictions, in the requested type; latents: y, (B, C, h, w), scaled as the U-Net sees it."""

    images: Tensor | np.ndarray | list[Image.Image]
    latents: Tensor


class DMPPipeline(DiffusionPipeline):
    """A text-to-image latent diffusion model that turns an image into one of its properties.

    Components are those of ``StableDiffusionPipeline``; of ``scheduler`` only the configuration is used.
    ``card`` is the adapter's ``dmp.json`` (as a dict), or None: the paper's settings then.
    ``decoder`` is a small decoder of latents, or None: the VAE decodes.
    """

    model_cpu_offload_seq: Any = "text_encoder->unet->vae->decoder"
    _optional_components = ["decoder"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        card: dict[str, Any] | None = None,
        decoder: AutoencoderTiny | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.use_decoder(decoder)
        self.register_to_config(card=card)
        self._empty_embeds: Tensor | None = None

    @classmethod
    def from_pretrained(  # type: ignore[override]  # diffusers' first argument, under another name
        cls, base: str | Path, adapter: str | Path | None = None, check_base: bool = True, **kwargs: Any
    ) -> DMPPipeline:
        """Load a base model (folder in diffusers' format, hub id or ``shipped:NAME``) and, if given, an adapter.

        adapter: whatever :func:`dmp_core.diffusion.load_adapter` reads.
        check_base: refuse an adapter that was trained on another base.
        kwargs: diffusers' own, e.g. the dtype. Move the result with ``.to(device)``.

        Raises InputError that names the file when a part contains NaN or infinity, and as :func:`load_adapter` does.
        """
        base = shipped_folder(base, "priors", "base") or base
        if Path(base).is_dir() and not (Path(base) / _BASE_FILE).is_file():
            raise InputError(f"{base}: not a diffusers model, {_BASE_FILE} is missing; give the folder that holds it")
        kwargs, dtypes = _without_bfloat16(kwargs)
        pipeline: DMPPipeline = super().from_pretrained(str(base), **kwargs)
        check_parts(pipeline.components, base)
        pipeline._cast(dtypes)
        if adapter is not None:
            pipeline.load_adapter(adapter, check_base)
        return pipeline

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """Save the base model. Raises InputError while an adapter is loaded: it is saved in its own folder."""
        if getattr(self.unet, "peft_config", None):
            raise InputError("unet: carries an adapter; save that with save_adapter(), or remove_adapter() first")
        super().save_pretrained(str(save_directory), **kwargs)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As in diffusers; before a cast to bfloat16 the base model's identity is stored."""
        if torch.bfloat16 in (*args, kwargs.get("dtype")):
            self._note_identity()
        moved: Self = super().to(*args, **kwargs)
        return moved

    def load_adapter(self, path: str | Path, check_base: bool = True) -> AdapterCard:
        """Put an adapter on the U-Net and use its card's settings as defaults; returns the card."""
        card = load_adapter(self.unet, path, check_base, self.vae)
        self.register_to_config(card=card.stated())
        return card

    def use_decoder(self, decoder: Any) -> None:
        """Decode with this AutoencoderTiny from now on; None: the VAE. Raises InputError if it does not fit the VAE."""
        if decoder is not None:
            config = {**decoder.config, "_class_name": type(decoder).__name__}
            check_decoder(config.get("_name_or_path") or "it", config, self.vae.config)
        self.register_modules(decoder=decoder)

    @property
    def decoding(self) -> Any:
        """The network that decodes latents."""
        return self.vae if self.decoder is None else self.decoder

    def _cast(self, dtypes: Mapping[str, torch.dtype]) -> None:
        if dtypes:
            self._note_identity()
        for part, dtype in dtypes.items():
            network = getattr(self, part, None)
            if isinstance(network, torch.nn.Module):
                torch.nn.Module.to(network, dtype)  # diffusers' own `to` warns that it keeps no part in float32

    def _note_identity(self) -> None:
        """An adapter belongs to a base model, which cannot be recognised from bfloat16's few digits."""
        note_identity(self.unet)
        note_identity(self.vae)

    @property
    def card(self) -> AdapterCard:
        """The default settings of :meth:`__call__`."""
        return AdapterCard.model_validate(dict(self.config).get("card") or {})

    @property
    def schedule(self) -> Schedule:
        """The base model's betas with the adapter's spacing and end points."""
        return Schedule.from_config(self.scheduler.config, **self.card.schedule.model_dump())

    @property
    def native_resolution(self) -> int:
        """Shorter side, in pixels, of the training images of the adapter, else of the base model."""
        size = self.unet.config.sample_size
        size = min(size) if isinstance(size, list | tuple) else size
        return self.card.resolution or int(size) * downscale_factor(self.vae)

    @torch.no_grad()
    def __call__(
        self,
        images: Images,
        prompt: str | Sequence[str] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        *,
        prediction: Prediction | None = None,
        source: Source | None = None,
        schedule: Schedule | None = None,
        resolution: Resolution = "native",
        resampling: Resampling = "antialias",
        mode: Mode | None = None,
        scale: float | Literal["minmax"] | None = None,
        output_type: OutputType = "pt",
        generator: torch.Generator | None = None,
        mirrored: bool = False,
        colour_noise: float | None = None,
        return_dict: bool = True,
    ) -> DMPOutput | tuple[Any, ...]:
        """Predict a dense property of each image.

        images: PIL image(s) of one size, or float tensor (B, 3, H, W) or (3, H, W) in [0, 1].
        prompt: one for all images, or one each; None is the empty prompt (recommended).
        num_inference_steps, prediction, source, schedule, mode, scale: None takes the adapter's
            setting, without an adapter the paper's (5, "v", "oracle", leading, "RGB", 1).
        guidance_scale: classifier-free guidance; matters only with a prompt.
        resolution: shorter side at which the network works, or (height, width); "native" is the size it
            was trained at, "input" the images' own. Results come back in the images' size.
        resampling: "antialias" (bicubic, clamped to the valid range); the published behaviours
            "dmp_compat" and "dmp_compat_aliased" (torchvision 0.13) do not clamp, and resize
            8-bit images for PIL output.
        mode: "RGB" for three channels in [0, 1], "F" for their mean in [0, 1] times ``scale``
            ("minmax": stretched to [0, 1] per image).
        output_type: "pt" (B, C, H, W), "np" channels last, "pil" list, "latent", or "label": what `dmp predict` writes,
            arrays in the units of the modality that the adapter's card names (unit normals, metres, class ids …).
        generator: samples the VAE's posterior with it instead of taking the mode.
        mirrored, colour_noise: for "label", as in `SamplingConfig`.

        Returns :class:`DMPOutput`; with ``return_dict=False`` the tuple (images, latents). Networks run in evaluation
        mode, whatever their mode. Raises InputError on invalid arguments, and its subclass `NotFinite` on
        NaN or infinity in a result.
        """
        steps = self.card.num_steps if num_inference_steps is None else num_inference_steps
        _check_settings(steps, guidance_scale, mode, resampling, output_type, scale)
        result: Any
        with self.running(
            prompt=prompt, num_inference_steps=steps, guidance_scale=guidance_scale, prediction=prediction,
            source=source, schedule=schedule, encode=partial(encode_images, self.vae, generator=generator),
        ) as latents_of:  # fmt: skip
            if output_type == "label":
                result, y = self._labels(images, resolution, latents_of, mirrored, colour_noise)
            else:
                pixels = to_pixels(images).to(self._execution_device, torch.float32)
                size = (pixels.shape[-2], pixels.shape[-1])
                y = latents_of(resize(pixels, self._working_size(size, resolution), resampling != "dmp_compat_aliased"))
                result = self._result(y, size, mode, scale, resampling, output_type)
        return DMPOutput(images=result, latents=y) if return_dict else (result, y)

    @contextmanager
    def running(
        self,
        *,
        prompt: str | Sequence[str] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        prediction: Prediction | None = None,
        source: Source | None = None,
        schedule: Schedule | None = None,
        encode: Encode | None = None,
    ) -> Iterator[Callable[[Tensor], Tensor]]:
        """The function from images (B, 3, h, w) in [0, 1], in whole latents, to label latents; for several calls.

        encode: from such images to their scaled latents; None: this VAE, the posterior's mode.
        Other arguments, and the networks' mode, as in `__call__`.
        """
        device, dtype = self._place()
        steps = num_inference_steps or self.card.num_steps
        encode, schedule = encode or partial(encode_images, self.vae), schedule or self.schedule
        prediction, source = prediction or self.card.prediction, source or self.card.source

        def latents_of(pixels: Tensor) -> Tensor:
            with self.progress_bar(total=steps) as bar:
                x = encode(pixels.to(device, torch.float32)).to(dtype)
                denoise = _ticking(self._denoiser(prompt, x, guidance_scale, device), bar.update)
                y: Tensor = sample(denoise, x, schedule, steps, prediction, source)
            return y

        with torch.no_grad(), evaluating(self.vae, self.unet, self.text_encoder, self.decoding):
            yield latents_of
        self.maybe_free_model_hooks()

    def _place(self) -> tuple[torch.device, torch.dtype]:
        """Where the networks compute, and in which precision the U-Net does.

        Offloading and casting hang hooks on layers. diffusers looks for them so slowly that small networks wait for it.
        """
        networks = [part for part in self.components.values() if isinstance(part, torch.nn.Module)]
        layers = (vars(layer) for network in networks for layer in network.modules())
        if any("_diffusers_hook" in layer or "_hf_hook" in layer for layer in layers):
            return self._execution_device, self.unet.dtype
        first = next(value for value in self.unet.parameters() if value.is_floating_point())
        return first.device, first.dtype

    def _labels(
        self, images: Images, resolution: Resolution, latents_of: Any, mirrored: bool, colour_noise: float | None
    ) -> tuple[np.ndarray, Tensor]:
        """Labels in the units of the card's modality, as `dmp predict` makes them, and their latents."""
        card = self.card
        if (modality := card.modality) is None:
            raise InputError("output_type: label needs an adapter whose card says what it predicts")
        if isinstance(images, Tensor):
            pixels = _checked_tensor(images)
            size = (pixels.shape[-2], pixels.shape[-1])
            pixels = resize(pixels, self._working_size(size, resolution)) * 2 - 1
        else:
            arrays = _arrays(images)
            size = arrays.shape[1:3]
            working = self._working_size(size, resolution)
            pixels = image_to_vae(np.stack([resize_image(array, working) for array in arrays]))
        noise = colour_noise if modality.has_classes else None
        found = predict_labels(
            self.decoding, latents_of, pixels, size, modality, Code(**card.code_of(modality)),
            classes=card.encoding.classes(noise), both_ways=mirrored, colour_noise=noise,
        )  # fmt: skip
        assert found.latents is not None, "without tiles"
        return found.labels, found.latents

    def _result(
        self,
        y: Tensor,
        size: tuple[int, int],
        mode: Mode | None,
        scale: float | Literal["minmax"] | None,
        resampling: Resampling,
        output_type: Literal["pt", "np", "pil", "latent"],
    ) -> Any:
        """Label latents as what `output_type` names, at `size` = (height, width)."""
        if output_type == "latent":
            check_outputs(y)
            return y
        decoded, encoding = decode_latents(self.decoding, y).float(), self.card.encoding
        check_outputs(decoded)
        depth_scale = encoding.scale if scale is None else scale
        return postprocess(decoded, size, mode or encoding.mode, depth_scale, resampling, output_type)

    def encode_prompt(self, prompt: str | Sequence[str], device: torch.device | None = None) -> Tensor:
        """Text embeddings (B, L, D) of one prompt or several; long ones are truncated."""
        tokens = tokenise(self.tokenizer, [prompt] if isinstance(prompt, str) else prompt)
        embeds: Tensor = self.text_encoder(tokens.to(device or self._execution_device))[0]
        return embeds

    def _denoiser(
        self, prompt: str | Sequence[str] | None, x: Tensor, guidance_scale: float, device: torch.device
    ) -> Denoiser:
        if prompt is None:
            return unet_denoiser(self.unet, self._embed_empty(device, x.dtype))
        if not isinstance(prompt, str) and len(prompt) != len(x):
            raise InputError(f"prompt: {len(prompt)} prompts for {len(x)} images; give one, or one each")
        empty = None if guidance_scale == 1 else self._embed_empty(device, x.dtype)
        return unet_denoiser(self.unet, self.encode_prompt(prompt, device), empty, guidance_scale)

    def _embed_empty(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Embedding of the empty prompt, (1, L, D), computed once: most calls use only this one."""
        if self._empty_embeds is None:
            self._empty_embeds = self.encode_prompt("", device)
        self._empty_embeds = self._empty_embeds.to(device, dtype)
        return self._empty_embeds

    def _working_size(self, size: tuple[int, int], resolution: Resolution) -> tuple[int, int]:
        """(height, width) to work at: whole latents, the aspect ratio kept as far as they allow."""
        factor = downscale_factor(self.vae)
        if resolution == "input":
            return working_size(size, None, factor)
        side = self.native_resolution if resolution == "native" else resolution
        sides = side if isinstance(side, tuple) and len(side) == 2 else (side,)
        if not all(type(pixels) is int and factor <= pixels <= _LARGEST for pixels in sides):
            raise InputError(
                f"resolution: {resolution!r}; give pixels (at least {factor}, at most {_LARGEST}), 'native' or 'input'"
            )
        if len(sides) == 1:
            return working_size(size, sides[0], factor)
        return working_size(sides, None, factor)


def to_pixels(images: Images) -> Tensor:
    """Images of any accepted kind as float (B, 3, H, W) in [0, 1]. Raises InputError that names the fix."""
    if isinstance(images, Tensor):
        return _checked_tensor(images)
    return torch.from_numpy(_arrays(images)).permute(0, 3, 1, 2).float() / 255


def _arrays(images: Image.Image | Sequence[Image.Image]) -> np.ndarray:
    """PIL images of one size as uint8 (B, H, W, 3)."""
    pil_images = [images] if isinstance(images, Image.Image) else list(images)
    if not pil_images or not all(isinstance(image, Image.Image) for image in pil_images):
        raise InputError("images: give a PIL image, a list of them, or a tensor (B, 3, H, W) in [0, 1]")
    arrays = [to_rgb(image, f"images[{number}]") for number, image in enumerate(pil_images)]
    sizes = sorted({array.shape[1::-1] for array in arrays})
    if len(sizes) > 1:
        raise InputError(f"images: sizes differ ({', '.join(f'{w}×{h}' for w, h in sizes)}); make one call for each")
    return np.stack(arrays)


def _checked_tensor(images: Tensor) -> Tensor:
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
        raise InputError(f"images: tensor of shape {tuple(images.shape)}; expected (B, 3, H, W)")
    low, high = images.min().item(), images.max().item()
    if not images.is_floating_point() or not (low >= -1e-3 and high <= 1 + 1e-3):
        raise InputError(f"images: {images.dtype} from {low:.4g} to {high:.4g}; expected floats in [0, 1]")
    return images


def resize(images: Tensor, size: tuple[int, int], antialias: bool = True) -> Tensor:
    """Bicubic to (height, width); may overshoot the input's range. Same size: unchanged."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=antialias)


def postprocess(
    decoded: Tensor,
    size: tuple[int, int],
    mode: Mode,
    scale: float | Literal["minmax"],
    resampling: Resampling,
    output_type: Literal["pt", "np", "pil"],
) -> Tensor | np.ndarray | list[Image.Image]:
    """Unclamped decoded channels (B, 3, h, w) to predictions of ``size`` (height, width)."""
    compat = resampling != "antialias"
    if mode == "RGB" and output_type == "pil" and compat:
        return [image.resize(size[::-1], Image.Resampling.BICUBIC) for image in _to_pil(decoded.clamp(0, 1))]
    values = depth_from_decoded(decoded, scale) if mode == "F" else decoded.clamp(0, 1)
    top = 1.0 if mode == "RGB" or scale == "minmax" else scale
    values = resize(values, size, resampling != "dmp_compat_aliased")
    values = values if compat else values.clamp(0, top)
    if output_type == "pt":
        return values
    return _to_pil(values) if output_type == "pil" else _to_numpy(values)


def _to_numpy(values: Tensor) -> np.ndarray:
    """(B, H, W, 3), or (B, H, W) for one channel; float32."""
    array: np.ndarray = values.permute(0, 2, 3, 1).cpu().numpy()
    return array[..., 0] if array.shape[-1] == 1 else array


def _to_pil(values: Tensor) -> list[Image.Image]:
    """8-bit RGB images, or 32-bit float ("F") images for one channel."""
    arrays = _to_numpy(values)
    if arrays.ndim == 4:
        arrays = (arrays.clip(0, 1) * 255).round().astype(np.uint8)
    return [Image.fromarray(array) for array in arrays]


def _ticking(denoise: Denoiser, tick: Any) -> Denoiser:
    def ticked(y_t: Tensor, t: Tensor) -> Tensor:
        output = denoise(y_t, t)
        tick()
        return output

    return ticked


def _check_settings(
    steps: Any, guidance_scale: Any, mode: str | None, resampling: str, output_type: str, scale: Any
) -> None:
    _check_count("num_inference_steps", steps)
    _check_number("guidance_scale", guidance_scale, least=0)
    _check_choice("mode", mode, ("RGB", "F"))
    _check_choice("resampling", resampling, ("antialias", "dmp_compat", "dmp_compat_aliased"))
    _check_choice("output_type", output_type, ("pt", "np", "pil", "latent", "label"))
    if scale not in (None, "minmax"):
        _check_number("scale", scale)


def _check_choice(name: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise InputError(f"{name}: {value!r}; choose one of {', '.join(choices)}")


def _check_count(name: str, value: Any) -> None:
    if type(value) is not int or value < 1:
        raise InputError(f"{name}: {value!r}; give a whole number, 1 or more")


def _check_number(name: str, value: Any, least: float | None = None) -> None:
    """Finite, and at least `least`; above 0 if `least` is None."""
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(number) and (number > 0 if least is None else number >= least)):
        raise InputError(f"{name}: {value!r}; give a number {'above 0' if least is None else f'of {least:g} or more'}")


@contextmanager
def evaluating(*networks: torch.nn.Module) -> Iterator[None]:
    """Run them in evaluation mode (no dropout), and restore every layer's mode afterwards."""
    training = [layer for network in networks for layer in network.modules() if layer.training]
    for layer in training:
        layer.training = False
    try:
        yield
    finally:
        for layer in training:
            layer.training = True


def _without_bfloat16(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, torch.dtype]]:
    """Arguments of diffusers that load float32 instead of bfloat16, and the parts to cast to bfloat16 afterwards."""
    kept = dict(kwargs)
    cast: dict[str, torch.dtype] = {}
    for name in ("dtype", "torch_dtype"):
        requested = kept.get(name)
        by_part = dict(requested) if isinstance(requested, Mapping) else {part: requested for part in _NETWORKS}
        found = {part: dtype for part, dtype in by_part.items() if dtype == torch.bfloat16}
        if not found:
            continue
        if found.pop("default", None):
            found |= {part: torch.bfloat16 for part in _NETWORKS if part not in by_part}
        cast |= found
        kept[name] = (
            {part: torch.float32 if dtype == torch.bfloat16 else dtype for part, dtype in by_part.items()}
            if isinstance(requested, Mapping)
            else torch.float32
        )
    return kept, cast
