"""Every object that can be made, by name."""

from __future__ import annotations

from dmp_core.synthesis.render.furniture import FURNITURE
from dmp_core.synthesis.render.kit import Maker
from dmp_core.synthesis.render.landmarks import OUTDOOR

MAKERS: dict[str, Maker] = {**OUTDOOR, **FURNITURE}
