"""Contact sheets of small images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def grid(images: NDArray[np.uint8], columns: int, enlarge: int = 2) -> Image.Image:
    """Images (N, H, W, 3), N a multiple of `columns`, in rows."""
    rows = [np.concatenate(list(images[start : start + columns]), axis=1) for start in range(0, len(images), columns)]
    sheet = Image.fromarray(np.concatenate(rows))
    return sheet.resize((sheet.width * enlarge, sheet.height * enlarge), Image.Resampling.BICUBIC)
