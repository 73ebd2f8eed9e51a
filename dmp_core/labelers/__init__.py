"""Labelers: from an image (or from the renderer's truth) to labels, and labels' encodings.

What belongs here: one file per labeler, the registry (`build_labeler`), and how a label
is written to a file or prepared for the VAE (`encoding`). Nothing here depends on shards or stages.

`encoding` and `exact` import without torch, since rendering and storing need no network.
"""

from __future__ import annotations

from dmp_core.dataset.truth import pack_truth, unpack_truth
from dmp_core.labelers.encoding import LABEL_EXTENSIONS, decode_label, encode_label
from dmp_core.labelers.registry import Labeler, build_labeler, labeler_names

__all__ = [
    "LABEL_EXTENSIONS",
    "Labeler",
    "build_labeler",
    "decode_label",
    "encode_label",
    "labeler_names",
    "pack_truth",
    "unpack_truth",
]
