"""Albedo: the share of light that surfaces reflect, per colour channel."""

from __future__ import annotations

from dmp_core.modalities.base import CardText, ErrorScale, Published
from dmp_core.modalities.colour import ColourMap
from dmp_core.modalities.scalar import INTRINSIC_METRICS, VALUE_SCORES

MODALITY = ColourMap(
    name="albedo",
    title="Albedo",
    short="Albedo",
    member="albedo.png",
    metrics=INTRINSIC_METRICS,
    error_scale=ErrorScale("absolute difference, mean of the channels", 0.3),
    quality_scores=VALUE_SCORES,
    card=CardText(
        stored="8-bit RGB PNG",
        meaning="Reflectance as display values in [0, 1], `code / 255`. Rendered, not stylised images equal "
        "albedo × shading up to 8-bit rounding, away from light sources.",
        snippet='albedo = np.asarray(Image.open(io.BytesIO(sample["albedo.png"]))) / 255.0  # (H, W, 3)',
    ),
    published=Published(("albedo", "ref")),
    instruction="make it into the corresponding albedo map",
)
