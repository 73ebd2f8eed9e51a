"""Prompt → scene → image with exact labels of what `PROVIDES` names, on the CPU.

What may live here: the language of prompts, the makers of furniture and rooms, the Mitsuba passes, and the styles.
Nothing here knows of datasets or stages. Everything loads on first use; Mitsuba is loaded by the first render.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmp_core.render.language import Item, SceneSpec, read_prompt
    from dmp_core.render.passes import RendererMissing, configure_threads
    from dmp_core.render.render import Rendered, build_scene, render_prompt

PROVIDES = ("normal", "depth", "segmentation", "albedo", "shading")
"""Modalities that rendered images come with exact labels of."""
CLASS_IDS = "segmentation"
"""That of them which names what is in the image."""

_HOMES = {
    "Item": "language",
    "Rendered": "render",
    "RendererMissing": "passes",
    "SceneSpec": "language",
    "build_scene": "render",
    "configure_threads": "passes",
    "read_prompt": "language",
    "render_prompt": "render",
}

__all__ = [
    "CLASS_IDS",
    "PROVIDES",
    "Item",
    "Rendered",
    "RendererMissing",
    "SceneSpec",
    "build_scene",
    "configure_threads",
    "read_prompt",
    "render_prompt",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
