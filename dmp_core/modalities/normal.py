"""Surface normals."""

from __future__ import annotations

from dmp_core.modalities.base import CardText, ErrorScale, Published
from dmp_core.modalities.colour import PUBLISHED_AXES_WORDS, VECTOR_METRICS, VECTOR_SCORES, VectorMap

MODALITY = VectorMap(
    name="normal",
    title="Surface normals",
    short="Normals",
    member="normal.png",
    metrics=VECTOR_METRICS,
    error_scale=ErrorScale("angle between the normals", 60.0, "°"),
    quality_scores=VECTOR_SCORES,
    card=CardText(
        stored="8-bit RGB PNG of (n + 1) / 2",
        meaning="Unit normal in camera axes: x to the right, y up, z toward the viewer. "
        "Decode as `code / 255 * 2 - 1`, then divide by the length; (128, 128, 128) means no surface. "
        "Mirroring an image negates x.",
        snippet='normal = np.asarray(Image.open(io.BytesIO(sample["normal.png"]))) / 255.0 * 2 - 1  # (H, W, 3)',
    ),
    published=Published(("normal",), {"axes": PUBLISHED_AXES_WORDS}),
    instruction="make it into the corresponding surface normal map",
)
