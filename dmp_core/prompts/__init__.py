"""Captions for images, from keywords: lists, generators (a grammar or a language model), clean-up.

`make_captions` is what the pipeline calls. A generator is one file with one class that meets
`CaptionGenerator`, and one line in `base.GENERATORS`. Nothing here imports torch before a
language model is built.
"""

from dmp_core.keywords.english import readable_keyword
from dmp_core.prompts.base import GENERATORS, CaptionGenerator, build_generator
from dmp_core.prompts.cleanup import caption_key, clean_caption
from dmp_core.prompts.keywords import read_keywords
from dmp_core.prompts.make import make_captions
from dmp_core.prompts.resume import ResumableGenerator

__all__ = [
    "GENERATORS",
    "CaptionGenerator",
    "ResumableGenerator",
    "build_generator",
    "caption_key",
    "clean_caption",
    "make_captions",
    "read_keywords",
    "readable_keyword",
]
