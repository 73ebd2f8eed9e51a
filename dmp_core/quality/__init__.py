"""Quality of samples: scores of images, prompts and labels, and the gates that are applied to them later.

This package contains pure functions from arrays, prompts and tables to scores, independent of stages and workspaces.
A score never depends on a bound, so a bound can change without scores being computed again.
"""

from dmp_core.quality.doubts import doubts
from dmp_core.quality.duplicates import nearest, nearest_earlier, nearest_earlier_prompt
from dmp_core.quality.gates import IMAGE, Gates, bounds_by_name, gates_for, kept
from dmp_core.quality.images import image_scores, perceptual_hash
from dmp_core.quality.labels import label_scores

__all__ = [
    "IMAGE",
    "Gates",
    "bounds_by_name",
    "doubts",
    "gates_for",
    "image_scores",
    "kept",
    "label_scores",
    "nearest",
    "nearest_earlier",
    "nearest_earlier_prompt",
    "perceptual_hash",
]
