"""Images from a text-to-image diffusion model, in batches as large as memory allows."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from transformers.utils import logging as transformers_logging

from dmp_core.errors import InputError
from dmp_core.memory import Batches, release_memory
from dmp_core.names import Precision
from dmp_core.overlap import behind
from dmp_core.runtime import RuntimeConfig
from dmp_core.store import Sample, Skipped
from dmp_core.store.attempts import next_seed
from dmp_core.synthesis.settings import DiffusionImages
from dmp_core.synthesis.sources import Row, image_sample
from dmp_core.synthesis.text_to_image import check_parts
from dmp_core.weights.load import choose_device, load_text_to_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

Made = tuple[Row, "NDArray[np.uint8]", dict[str, Any]]
"""A prompt's row, its image (H, W, 3), and further entries of the sample's json."""


class DiffusedImages:
    """Images from any text-to-image model that diffusers loads; see `ImageSource`.

    Each sample's noise comes from its own generator, on the CPU and seeded from its row: neither the batch nor the
    device changes the initial noise, and they change results only by rounding.
    """

    def __init__(self, settings: DiffusionImages, runtime: RuntimeConfig) -> None:
        """Raises InputError for a number format that the device does not support."""
        self.settings = settings
        self.device = choose_device(runtime.device)
        self.dtype = choose_dtype(settings.dtype, self.device)
        wanted = runtime.image_batch_size
        self.batches = Batches(
            first_batch_size(self.device, settings.resolution) if wanted == "auto" else wanted,
            "images",
            f"{self.device} as {self.dtype}",
            "lower images.resolution, take another images.dtype or a smaller images.model, or set runtime.device=cpu",
            item=f"one image of {settings.resolution} pixels",
        )
        self.skips = runtime.on_bad_sample.skips
        self.workers = runtime.workers
        self.pipeline: Any = None
        self.safety: SafetyChecker | None = None

    def __enter__(self) -> DiffusedImages:
        return self

    def __exit__(self, *exception: object) -> None:
        self.pipeline = self.safety = None
        release_memory()

    def samples(self, rows: list[Row]) -> Iterator[Sample | Skipped]:
        """See `ImageSource`. Threads encode a batch's images while the next batch is made.

        Raises InputError when the model cannot be loaded or does not fit the settings, when not even one image fits
        into memory, or, unless such samples are skipped, when an image is black or not finite.
        """
        if self.pipeline is None:
            self._load()
        for futures in behind(self.batches(rows, self._made), self._packed, self.workers):
            for future in futures:
                yield future.result()

    def _load(self) -> None:
        settings = self.settings
        with _quiet_libraries():
            pipeline = load_text_to_image(settings, getattr(torch, self.dtype), safety_checker=settings.safety_checker)
        configs = {part: getattr(pipeline, part).config for part in ("unet", "vae") if hasattr(pipeline, part)}
        check_parts(settings, configs)
        if settings.negative_prompt is not None and "negative_prompt" not in inspect.signature(pipeline).parameters:
            raise InputError(f"images.negative_prompt: {type(pipeline).__name__} takes none; leave it out")
        if settings.scheduler == "ddim":
            networks = getattr(torch, self.dtype) if settings.float32_latents else None
            pipeline.scheduler = ddim_like(pipeline.scheduler, networks)
        if hasattr(getattr(pipeline, "vae", None), "enable_slicing"):
            # Decoding a whole batch in one call takes more memory than all the steps before it.
            pipeline.vae.enable_slicing()
        self.safety = SafetyChecker.taken_from(pipeline)
        if settings.safety_checker and self.safety is None:
            log.info("%s has no safety checker; its samples carry no `safety`", settings.model)
        with self.batches.loading():
            self.pipeline = pipeline.to(self.device)
            if self.safety is not None:
                self.safety.network.to(self.device)

    def _made(self, rows: Sequence[Row]) -> Sequence[Made | Skipped]:
        with _quiet_libraries():
            images = self._images(rows)
            faults = [self._fault(row, image) for row, image in zip(rows, images, strict=True)]
            if not any(faults):
                return self._checked(rows, images)
            return [
                self._again(row, fault) if fault else self._checked([row], image[None])[0]
                for row, image, fault in zip(rows, images, faults, strict=True)
            ]

    def _checked(self, rows: Sequence[Row], images: NDArray[np.floating[Any]]) -> list[Made]:
        codes: NDArray[np.uint8] = (images * 255).round().astype(np.uint8)
        flags = [{}] * len(rows) if self.safety is None else self.safety(codes)
        return [*zip(rows, codes, flags, strict=True)]

    def _packed(self, made: Made | Skipped) -> Sample | Skipped:
        if isinstance(made, Skipped):
            return made
        row, image, flag = made
        return image_sample(row, image, self._provenance(), **flag)

    def _fault(self, row: Row, image: NDArray[np.floating[Any]]) -> str:
        """The fault of an image that the model made; empty if there is none."""
        made = f"{row['prompt']!r} (seed {row['seed']})"
        if not np.isfinite(image).all():
            return f"images.dtype: {self.settings.model} overflows in {self.dtype} at {made}; set images.dtype=float32"
        if not (image * 255).round().any():
            return (
                f"{self.settings.model} makes a black image of {made} in {self.dtype}; set images.dtype=float32, or "
                "change the prompt"
            )
        return ""

    def _again(self, row: Row, fault: str) -> Made | Skipped:
        """The sample from its next seed, `Skipped` if that fails too. Raises InputError if none may be skipped."""
        if not self.skips:
            raise InputError(f"{row['key']}: {fault}")
        row = row | {"seed": next_seed(int(row["seed"]))}
        images = self._images([row])
        if fault := self._fault(row, images[0]):
            return Skipped(row["key"], fault)
        return self._checked([row], images)[0]

    def _images(self, rows: Sequence[Row]) -> NDArray[np.floating[Any]]:
        """(B, H, W, 3) in [0, 1]."""
        settings = self.settings
        negative = settings.negative_prompt
        images: NDArray[np.floating[Any]] = self.pipeline(
            prompt=[row["prompt"] for row in rows],
            height=settings.resolution,
            width=settings.resolution,
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            generator=[torch.Generator().manual_seed(int(row["seed"])) for row in rows],
            output_type="np",
            **({} if negative is None else {"negative_prompt": [negative] * len(rows)}),
            **({"latents": self._noise(rows)} if settings.float32_latents else {}),
        ).images
        return images

    def _noise(self, rows: Sequence[Row]) -> torch.Tensor:
        """The initial latents, (B, C, h, w) float32: the pipeline would draw them in the networks' precision."""
        pipeline, side = self.pipeline, self.settings.resolution // self.pipeline.vae_scale_factor
        shape = (1, pipeline.unet.config.in_channels, side, side)
        streams = [torch.Generator().manual_seed(int(row["seed"])) for row in rows]
        return torch.cat([torch.randn(shape, generator=stream) for stream in streams])

    def _provenance(self) -> dict[str, Any]:
        """The settings, with the resolved values of automatic ones."""
        chosen = {"dtype": self.dtype, "scheduler": type(self.pipeline.scheduler).__name__}
        return self.settings.model_dump(mode="json") | chosen


class SafetyChecker:
    """A model's own safety checker; unlike in diffusers, the images stay unchanged."""

    def __init__(self, network: Any, extractor: Any) -> None:
        self.network, self.extractor = network, extractor

    @classmethod
    def taken_from(cls, pipeline: Any) -> SafetyChecker | None:
        """Remove the checker from a pipeline, which then no longer blackens flagged images."""
        network = getattr(pipeline, "safety_checker", None)
        if network is None:
            return None
        pipeline.safety_checker = None
        return cls(network, pipeline.feature_extractor)

    def __call__(self, images: NDArray[np.uint8]) -> list[dict[str, dict[str, bool]]]:
        """`{"safety": {"flagged": …}}` per image. images: (B, H, W, 3)."""
        pixels = self.extractor([Image.fromarray(image) for image in images], return_tensors="pt").pixel_values
        blackened = np.zeros((len(images), 1))  # the checker blackens its input images
        _, flags = self.network(clip_input=pixels.to(self.network.device, self.network.dtype), images=blackened)
        return [{"safety": {"flagged": bool(flag)}} for flag in flags]


def choose_dtype(name: Literal["auto"] | Precision, device: str) -> Precision:
    """Resolve `auto` to a format that suits the device; other names are returned unchanged.

    Raises InputError for float16 on the CPU, which has no native arithmetic for it.
    """
    if name == "float16" and device == "cpu":
        raise InputError("images.dtype: float16 is not for the CPU; set images.dtype=auto, or runtime.device=cuda")
    if name != "auto":
        return name
    if not device.startswith("cuda"):
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def first_batch_size(device: str, resolution: int) -> int:
    """First batch size: as many pixels as 1 image of 512 x 512 on the CPU, 16 elsewhere; at most 32 images."""
    images = 1 if device == "cpu" else 16
    return min(32, max(1, images * 512**2 // resolution**2))


class Float32DDIM(DDIMScheduler):
    """DDIM whose latents stay in float32 while the networks work in another precision, as the published script does."""

    network_dtype = torch.float32

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        return super().scale_model_input(sample, timestep).to(self.network_dtype)

    def step(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *given: Any, **named: Any) -> Any:
        """(next latents, estimate of the last ones) in float32; the last latents in the precision of the VAE."""
        named["return_dict"] = False
        latents, estimate = super().step(model_output.float(), timestep, sample.float(), *given, **named)
        last = int(timestep) == int(self.timesteps[-1])
        return latents.to(self.network_dtype) if last else latents, estimate


def ddim_like(scheduler: Any, networks: torch.dtype | None = None) -> DDIMScheduler:
    """DDIM with the noise schedule that the model was trained with.

    networks: their precision, if the latents are to stay in float32; None: both have one precision.
    Raises InputError for a model of another kind (flow matching).
    """
    if DDIMScheduler not in [type(scheduler), *scheduler.compatibles]:
        raise InputError(
            f"images.scheduler: DDIM cannot replace {type(scheduler).__name__}; set images.scheduler=model"
        )
    # Latents are not bounded; some published configurations omit this, and DDIM's default would clip.
    kind = DDIMScheduler if networks is None else Float32DDIM
    made: DDIMScheduler = kind.from_config(scheduler.config, clip_sample=False)
    if isinstance(made, Float32DDIM) and networks is not None:
        made.network_dtype = networks
    return made


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Hide warnings (caption truncated, image blackened): they come once per batch, and the second is false here."""
    libraries = [(library, library.get_verbosity()) for library in (diffusers_logging, transformers_logging)]
    for library, _ in libraries:
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, verbosity in libraries:
            library.set_verbosity(verbosity)
