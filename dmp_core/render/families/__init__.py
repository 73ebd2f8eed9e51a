"""How each family of rooms is furnished: one recipe a family; each only says what goes where."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dmp_core.render.families.bedrooms import bedroom, hospital
from dmp_core.render.families.indoors import (
    bathroom,
    classroom,
    dining_room,
    laboratory,
    library,
    living_room,
    office,
)
from dmp_core.render.families.kitchens import kitchen
from dmp_core.render.families.placing import place_remaining
from dmp_core.render.families.public import (
    bar,
    cellar,
    corridor,
    gym,
    hall,
    lobby,
    pool,
    shop,
    staircase,
    vehicle,
    workshop,
)
from dmp_core.render.language import SceneSpec
from dmp_core.render.room import Room
from dmp_core.render.scene import Scene

# width, depth, height in metres: lowest and highest
_SIZES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "bedroom": ((3.5, 4.8), (3.6, 4.8), (2.45, 2.9)),
    "living_room": ((4.2, 5.6), (4.0, 5.2), (2.5, 3.0)),
    "kitchen": ((3.2, 4.6), (3.2, 4.2), (2.45, 2.8)),
    "bathroom": ((2.5, 3.4), (2.6, 3.4), (2.4, 2.7)),
    "office": ((3.6, 5.0), (3.6, 4.8), (2.5, 2.9)),
    "dining_room": ((3.8, 5.2), (4.0, 5.2), (2.6, 3.1)),
    "bar": ((4.4, 6.0), (4.4, 5.6), (2.7, 3.3)),
    "corridor": ((1.8, 2.5), (7.0, 11.0), (2.4, 3.0)),
    "staircase": ((3.6, 5.0), (4.5, 5.5), (3.6, 4.4)),
    "shop": ((4.6, 6.5), (5.0, 7.0), (2.8, 3.5)),
    "hall": ((8.0, 11.0), (11.0, 16.0), (5.0, 7.5)),
    "classroom": ((6.0, 8.0), (6.0, 8.0), (2.9, 3.4)),
    "library": ((4.4, 6.0), (4.6, 6.5), (2.8, 3.6)),
    "lobby": ((6.0, 8.5), (6.0, 9.0), (3.0, 4.2)),
    "hospital": ((3.8, 5.2), (4.0, 5.0), (2.6, 2.9)),
    "laboratory": ((4.8, 6.2), (4.8, 6.2), (2.8, 3.2)),
    "workshop": ((6.0, 9.0), (7.0, 10.0), (3.6, 5.2)),
    "cellar": ((3.8, 5.4), (5.0, 7.0), (2.3, 2.8)),
    "gym": ((10.0, 13.0), (11.0, 15.0), (5.0, 7.0)),
    "pool": ((6.5, 8.0), (7.5, 9.0), (3.2, 4.5)),
    "vehicle": ((2.6, 3.4), (7.0, 9.0), (2.1, 2.4)),
}


RECIPES: dict[str, Callable[[Room], None]] = {
    "bedroom": bedroom, "living_room": living_room, "kitchen": kitchen, "bathroom": bathroom, "office": office,
    "dining_room": dining_room, "bar": bar, "corridor": corridor, "staircase": staircase, "shop": shop,
    "hall": hall, "classroom": classroom, "library": library, "lobby": lobby, "hospital": hospital,
    "laboratory": laboratory, "workshop": workshop, "cellar": cellar, "gym": gym, "pool": pool,
    "vehicle": vehicle,
}  # fmt: skip


def build_room(spec: SceneSpec, rng: np.random.Generator) -> tuple[Scene, Room]:
    """An indoor scene, without its camera."""
    size = [float(rng.uniform(*span)) for span in _SIZES[spec.family]]
    room = Room(spec, rng, size)
    room.sun()
    room.fill_light()
    RECIPES[spec.family](room)
    place_remaining(room)
    return room.scene, room
