"""Every object that can be made, by name."""

from __future__ import annotations

from dmp_core.render.furniture import FURNITURE
from dmp_core.render.kit import Maker
from dmp_core.render.landmarks import OUTDOOR

MAKERS: dict[str, Maker] = {**OUTDOOR, **FURNITURE}
