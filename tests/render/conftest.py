"""Renders that several tests look at, made once a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pytest

from dmp_core.render import Rendered, configure_threads, render_prompt

Render = Callable[..., Rendered]


@pytest.fixture(scope="session")
def render() -> Render:
    """`render_prompt` at 48 pixels and few samples, remembered."""
    pytest.importorskip("mitsuba")
    configure_threads(1)

    @lru_cache(maxsize=64)
    def draw(prompt: str, keyword: str, seed: int, resolution: int = 48, spp: int = 2) -> Rendered:
        return render_prompt(prompt, keyword, seed, resolution=resolution, samples_per_pixel=spp, max_depth=3)

    return draw
