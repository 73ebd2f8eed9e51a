"""Shading: the light that reaches a surface, as grey levels."""

from __future__ import annotations

from dmp_core.modalities.base import CardText, ErrorScale, Published
from dmp_core.modalities.scalar import INTRINSIC_METRICS, VALUE_SCORES, ScalarMap

MODALITY = ScalarMap(
    name="shading",
    title="Shading",
    short="Shading",
    member="shading.png",
    metrics=INTRINSIC_METRICS,
    error_scale=ErrorScale("absolute difference", 0.3),
    quality_scores=VALUE_SCORES,
    card=CardText(
        stored="8-bit grey PNG",
        meaning="Incoming light as display values in [0, 1], `code / 255`.",
        snippet='shading = np.asarray(Image.open(io.BytesIO(sample["shading.png"]))) / 255.0  # (H, W)',
    ),
    published=Published(("shading", "sha")),
    instruction="make it into the corresponding shading map",
)
