"""Prompt -> scene -> image with exact labels of what `PROVIDES` names, on the CPU.

What may live here: the language of prompts, the makers of furniture and rooms,
the Mitsuba passes, and the styles. Nothing here knows of datasets or stages.
Importing it is cheap; Mitsuba is loaded by the first render.
"""

from dmp_core.resources import ade20k_classes as class_names
from dmp_core.synthesis.render.language import Item, SceneSpec, read_prompt
from dmp_core.synthesis.render.passes import RendererMissing, configure_threads
from dmp_core.synthesis.render.render import Rendered, build_scene, render_prompt
from dmp_core.synthesis.render.vocabulary import vocabulary

FAMILIES: tuple[str, ...] = tuple(vocabulary().families)

__all__ = [
    "FAMILIES",
    "Item",
    "Rendered",
    "RendererMissing",
    "SceneSpec",
    "build_scene",
    "class_names",
    "configure_threads",
    "read_prompt",
    "render_prompt",
    "vocabulary",
]
