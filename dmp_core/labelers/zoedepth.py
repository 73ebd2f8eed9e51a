"""ZoeDepth: metric depth (Bhat et al., arXiv:2302.12288), through its port in transformers.

One network, three published heads: `Intel/zoedepth-nyu` (indoors; used for DMP's labels),
`Intel/zoedepth-kitti` (roads), and `Intel/zoedepth-nyu-kitti`, which chooses between the two for each image.

The original infers on an image with mirrored margins, since its network is poor at borders (`pad`), and
averages with the prediction for the flipped image (`flip`). Its default, and so DMP's, is both; transformers'
is margins only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmp_core.errors import InputError, MissingExtra
from dmp_core.labelers.common import DTYPES, autocast, check_images, check_options, finite_maps, in_parts
from dmp_core.labelers.weights import refuse

try:
    from transformers import AutoConfig, ZoeDepthForDepthEstimation, ZoeDepthImageProcessor
    from transformers.models.zoedepth.modeling_zoedepth import ZoeDepthDepthEstimatorOutput
except ImportError as error:
    raise MissingExtra(error.name or "transformers", "labelers") from None

PUBLISHED = ("Intel/zoedepth-nyu", "Intel/zoedepth-kitti", "Intel/zoedepth-nyu-kitti")
"""Models on the Hugging Face hub."""
MULTIPLE = 32
"""Multiple of the original's sizes; also used where a processor's file has none, since transformers would use 1/32."""


@dataclass(frozen=True)
class Resize:
    """Resizing of the network's input: bilinear with aligned corners, after the margins were added."""

    size: tuple[int, int]
    """Height and width to aim for, in pixels."""
    keep_aspect_ratio: bool
    """Scale both sides by the factor nearer to 1, instead of stretching."""
    multiple: int
    """Each side is then rounded to the nearest multiple of this."""

    @classmethod
    def of(cls, processor: Any) -> Resize:
        """A checkpoint's own policy, from its `preprocessor_config.json`."""
        size, multiple = processor.size, processor.ensure_multiple_of
        whole = int(multiple) if multiple and multiple >= 1 else MULTIPLE
        return cls((int(size["height"]), int(size["width"])), bool(processor.keep_aspect_ratio), whole)

    def arguments(self) -> dict[str, Any]:
        """The same as arguments of transformers' image processor."""
        height, width = self.size
        return {
            "size": {"height": height, "width": width},
            "keep_aspect_ratio": self.keep_aspect_ratio,
            "ensure_multiple_of": self.multiple,
        }


# ------------------------------------------------------------------------------------ loading
def load_network(weights: str | Path | None, revision: str = "main", device: str | None = None) -> tuple[Any, Any]:
    """The network, float32, frozen, on the CPU, and its image processor; on the device `meta` without its weights.

    weights: a folder in transformers' format (config.json, model.safetensors, preprocessor_config.json) or a
    hub id such as those of `PUBLISHED`. revision: of a hub id.
    Raises InputError when something is missing or unreadable, or when the weights are not the network's own.
    """
    if weights is None:
        raise InputError(f"labeler 'zoedepth': no weights given; give a folder or one of {', '.join(PUBLISHED)}")
    name = str(weights)
    if not Path(name).is_dir() and (Path(name).is_absolute() or name.count("/") != 1 or name.startswith(".")):
        raise InputError(f"labeler 'zoedepth': no folder {name}; give one, or one of {', '.join(PUBLISHED)}")
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        processor = ZoeDepthImageProcessor.from_pretrained(name, revision=revision)
        if config.model_type != "zoedepth":
            raise InputError(f"{name}: contains a model of the kind {config.model_type!r}, not ZoeDepth; give another")
        loaded: Any = ZoeDepthForDepthEstimation.from_pretrained(
            name,
            config=config,
            revision=revision,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            device_map=device,
        )
    except InputError:
        raise
    except Exception as error:  # a broken file raises one of many kinds, depending on its format
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{name}: not readable as ZoeDepth ({reason}); it needs config.json, model.safetensors and "
            "preprocessor_config.json; download the files again"
        ) from error
    network, info = loaded
    _check_loading(name, info)
    return network.requires_grad_(False).eval(), processor


def _check_loading(name: str, info: dict[str, Any]) -> None:
    """Strict: transformers only warns, and leaves missing weights random."""
    faults = {
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
        "of another shape": sorted(str(entry[0]) for entry in info["mismatched_keys"]),
    }
    refuse(name, faults, "weights and config.json do not match", "download both again")


# ------------------------------------------------------------------------------------ labeler
class ZoeDepthLabeler:
    """Images (B, 3, H, W) in [0, 1], R G B -> {"depth": (B, H, W)}, metres along the optical axis.

    An image's depth does not depend on the others of its batch. `policy` decides how images are resized.
    """

    def __init__(
        self,
        network: Any,
        processor: Any,
        policy: Resize | None = None,
        *,
        pad: bool = True,
        flip: bool = False,
        dtype: str = "float32",
        batch_size: int = 4,
    ) -> None:
        self.network = network
        self.processor = processor
        self.policy = policy or Resize.of(processor)
        self.pad = pad
        self.flip = flip
        self.dtype = DTYPES[dtype]
        heads: list[dict[str, Any]] = network.config.bin_configurations
        # With several heads the network votes over the batch, so that one image's head would depend on the others.
        self.batch_size = 1 if len(heads) > 1 else batch_size
        self.nearest = min(float(head["min_depth"]) for head in heads)
        self.device = next(network.parameters()).device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Depth has the images' height and width, and is on the images' device. Raises InputError."""
        check_images(images)
        labels = in_parts(images, self.batch_size, self._label)
        return {"depth": labels.to(images.device)}

    def _label(self, images: Tensor) -> Tensor:
        # Bicubic enlargement may overshoot below zero at an edge, and zero would mean: no surface.
        return finite_maps(images, self.dtype, self._depth).clamp(min=self.nearest)

    def _depth(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        pixels = self.processor(
            images=list(images.float()),
            do_rescale=False,
            do_resize=True,
            do_pad=self.pad,
            return_tensors="pt",
            **self.policy.arguments(),
        )["pixel_values"].to(self.device)
        metric = self.processor.post_process_depth_estimation(
            self._predict(pixels, dtype),
            source_sizes=[tuple(images.shape[2:])] * len(images),
            outputs_flipped=self._predict(pixels.flip(-1), dtype) if self.flip else None,
            do_remove_padding=self.pad,
        )
        return torch.stack([each["predicted_depth"] for each in metric])

    def _predict(self, pixels: Tensor, dtype: torch.dtype) -> ZoeDepthDepthEstimatorOutput:
        with autocast(self.device, dtype):
            outputs = self.network(pixel_values=pixels)
        return ZoeDepthDepthEstimatorOutput(predicted_depth=outputs.predicted_depth.float())


def build(
    weights: str | Path | None,
    device: str = "cpu",
    *,
    size: tuple[int, int] | None = None,
    keep_aspect_ratio: bool | None = None,
    multiple: int | None = None,
    pad: bool = True,
    flip: bool = False,
    dtype: str = "float32",
    batch_size: int = 4,
    revision: str = "main",
) -> ZoeDepthLabeler:
    """The labeler `zoedepth`.

    weights, revision: see `load_network`.
    size (height, width), keep_aspect_ratio, multiple: see `Resize`; None keeps the checkpoint's own, which is
    384 x 512, in proportion, multiples of 32 for `Intel/zoedepth-nyu`.
    pad: predict with mirrored margins, and crop them off. flip: average with the flipped image, which takes
    twice as long; pad and flip together are the original's inference, and DMP's.
    batch_size: images at a time, at least 1; a network of several heads takes them one by one.
    Raises InputError for unknown options and for weights that do not fit.
    """
    check_options(dtype, batch_size)
    network, processor = load_network(weights, revision, "meta" if device == "meta" else None)
    policy = _policy(Resize.of(processor), size, keep_aspect_ratio, multiple, network.patch_size)
    return ZoeDepthLabeler(
        network.to(device),
        processor,
        policy,
        pad=pad,
        flip=flip,
        dtype=dtype,
        batch_size=batch_size,
    )


def _policy(
    own: Resize, size: tuple[int, int] | None, keep_aspect_ratio: bool | None, multiple: int | None, patch: int
) -> Resize:
    """The checkpoint's policy with the user's changes."""
    height, width = own.size if size is None else size
    multiple = own.multiple if multiple is None else multiple
    if multiple < 1 or multiple % patch:
        raise InputError(f"multiple: {multiple} is not a multiple of the network's patches of {patch} pixels")
    if min(height, width) < multiple:
        raise InputError(f"size: {height} x {width} is below one multiple of {multiple} pixels; give more")
    return Resize((height, width), own.keep_aspect_ratio if keep_aspect_ratio is None else keep_aspect_ratio, multiple)
