"""HTML of images next to each other, without any file: each is in the page as PNG."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.images import resize_image
from dmp_core.modalities.files import png_bytes, quick_png

Array = NDArray[Any]


def overlay(image: Array, above: Array, opacity: float) -> Array:
    """Both uint8 (H, W, 3); `above` is brought to the image's size; opacity: 0 the image alone, 1 the other alone."""
    above = resize_image(above, (image.shape[0], image.shape[1]))
    mixed = image.astype(np.float64) * (1 - opacity) + above.astype(np.float64) * opacity
    return np.round(mixed).astype(np.uint8)


def figures(images: Mapping[str, Array], about: str) -> str:
    """A row of figures: caption → image, uint8 (H, W, 3). about: what all alternative texts end with."""
    return f'<div class="dmp-figures">{"".join(_figure(name, image, about) for name, image in images.items())}</div>'


def _figure(name: str, image: Array, about: str) -> str:
    with quick_png():
        data = base64.b64encode(png_bytes(image)).decode()
    text = escape(f"{name} of {about}")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{text}"><figcaption>{escape(name)}</figcaption></figure>'
    )
