"""Labelers: from an image to labels.

What may live here: one file per labeler, the registry that names them (`build_labeler`), and their settings. Nothing
here knows of shards or stages, and the registry imports without torch.
"""

from __future__ import annotations

from dmp_core.labelers.registry import Labeler, build_labeler, labeler_names

__all__ = ["Labeler", "build_labeler", "labeler_names"]
