"""Labelers: from an image (or from the renderer's truth) to labels, and labels' encodings.

What may live here: one file a labeler, the registry that names them (`build_labeler`), and how a label
is written to a file or put before the VAE (`encoding`). Nothing here knows of shards or stages.

`encoding` and `exact` import without torch, since the stages that render and store need no network.
"""

from __future__ import annotations

from dmp_core.labelers.exact import pack_truth, unpack_truth
from dmp_core.labelers.registry import Labeler, build_labeler, labeler_names

__all__ = [
    "Labeler",
    "build_labeler",
    "labeler_names",
    "pack_truth",
    "unpack_truth",
]
