"""Layout of one array, until its callers ask the modality itself."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from dmp_core.modalities import Modality, modality_of


def image_channels_last(modality: Modality | str, array: NDArray[Any]) -> NDArray[Any]:
    """One image as (H, W, 3) or (H, W)."""
    return modality_of(modality).image_channels_last(array)
