"""Arrangements that several rooms share, and the last resort for what the prompt names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dmp_core.render.decor import Palette, hsv
from dmp_core.render.furniture.tables import wall_shelf
from dmp_core.render.furniture.trinkets import floor_lamp
from dmp_core.render.kit import Thing
from dmp_core.render.makers import MAKERS
from dmp_core.render.mesh import scale
from dmp_core.render.room import Room, Wish
from dmp_core.render.scene import Placed


def table_lamp(room: Room, odds: float) -> bool:
    """Whether one more lamp goes onto a table; a floor lamp that was asked for is left for the floor."""
    item = room.spec.find("lamp")
    return bool(room.wanted("lamp", 1 + room.made.get("lamp", 0), odds)) and not (
        item is not None and "floor" in item.word
    )


def in_corner(room: Room, thing: Thing) -> Placed | None:
    """In a back corner, turned a little towards the viewer, else anywhere along a wall."""
    for sign in room.pick((1, -1), (-1, 1)):
        w, _, d = thing.size
        reach = max(w, d) * 0.75
        placed = room.put(thing, sign * (room.width / 2 - reach), -room.depth + 0.25, -sign * room.near(15, 40))
        if placed is not None:
            return placed
    return room.anywhere(thing, ("left", "right", "back"))


def above(room: Room, below: Placed, name: str, odds: float) -> None:
    """Something on the wall over a piece of furniture."""
    for wish in room.wanted(name, 1, odds)[:1]:
        thing = room.make(name, wish)
        x, _, z = below.world(0, 0, 0)
        y = min(below.thing.size[1] + 0.3, room.height - thing.size[1] - 0.1)
        room.put(thing, x, z, below.turn, y)


def ceiling_lamp(room: Room, odds: float = 0.6) -> None:
    for wish in room.wanted("chandelier", 1, 0.0):
        room.hung(room.make("chandelier", wish))
    for wish in room.wanted("light", 1, odds if not room.made.get("chandelier") else 0.0):
        room.hung(room.make("light", wish))


def desk_set(room: Room, desk: Placed, seat_name: str, odds: float) -> None:
    """A seat in front of a desk, facing it, and things on top."""
    for wish in room.wanted(seat_name, 1, odds)[:1]:
        seat = room.make(seat_name, wish)
        x, _, z = desk.world(room.near(-0.15, 0.1), 0, desk.thing.size[2] + seat.size[2] * 0.8)
        room.set_down(seat, x, z, desk.turn + 180 + room.near(-25, 25))
    gadget = "computer" if room.named("computer") or (room.chance(0.5) and not room.named("monitor")) else "monitor"
    for wish in room.wanted(gadget, 1, 0.8)[:1]:
        room.on(desk, room.make(gadget, wish), 0)
    if table_lamp(room, 0.5):
        room.on(desk, room.make("lamp"), 1)
    if room.chance(0.6):
        room.trinket(desk, 2, ("book", "plant", "vase"))


def windows(
    room: Room, default: int, odds: float, walls: tuple[str, ...] = ("back", "left", "right"), **kw: Any
) -> None:
    for k, _ in enumerate(room.wanted("window", default, odds)):
        for wall in (walls[k % len(walls)], *walls):
            if room.window(wall, **kw) is not None:
                break


def pictures(room: Room, default: int, odds: float, y: float = 1.4) -> None:
    for wish in room.wanted("painting", default, odds):
        room.anywhere(room.make("painting", wish), y=y)


def case(room: Room, name: str, wish: Wish) -> Placed | None:
    """Case furniture against a wall; a television comes on a low cabinet, others carry trinkets."""
    if name == "television":
        stand = room.anywhere(room.make("cabinet", (room.spec.find("cabinet"), 0)))
        if stand is not None:
            stand.thing.spots = [(0, stand.thing.size[1] + 0.02, 0.05, 1.0, 0.4)]
            if stand.thing.size[1] < 1.2:
                room.on(stand, room.make("television", wish))
        return stand
    placed = room.anywhere(room.make(name, wish))
    if placed is not None and placed.thing.spots and placed.thing.size[1] < 1.5:
        room.trinket(placed)
        if name == "fireplace":
            above(room, placed, room.pick("painting", "mirror"), 0.7)
    return placed


def with_floor(room: Room, textures: tuple[str, ...]) -> Palette:
    texture = room.pick(*textures)
    colour = room.palette.floor
    if texture in ("tiles", "checks", "marble") and room.palette.floor_texture != texture:
        colour = hsv(room.near(0, 1), room.near(0.04, 0.35), room.near(0.55, 0.9))
    return replace(room.palette, floor_texture=texture, floor=colour)


def table_set(
    room: Room, table: Thing, at: tuple[float, float], chairs: int, seat: str = "chair", turn: float | None = None
) -> Placed:
    """A table with chairs pulled up on its long sides and ends, and places laid."""
    turn = room.pick(0.0, 0.0, 90.0) if turn is None else turn
    placed = room.set_down(table, at[0], at[1], turn)
    w, _, d = table.size
    wishes = room.wanted(seat, chairs, 0.97)
    slots = [
        (-w * 0.25, d + 0.05, 180),
        (w * 0.25, d + 0.05, 180),
        (-w * 0.25, -0.05, 0),
        (w * 0.25, -0.05, 0),
        (w / 2 + 0.05, d / 2, -90),
        (-w / 2 - 0.05, d / 2, 90),
    ]
    if len(wishes) <= 2:
        slots = [slots[2], slots[3], *slots[:2], *slots[4:]] if room.chance(0.5) else [slots[4], slots[5], *slots[:4]]
    for wish, (lx, lz, lturn) in zip(wishes, slots, strict=False):
        chair = room.make(seat, wish)
        # `turn` faces the seat towards the table, so its back edge lies outside.
        back = step(lturn, chair.size[2] * 0.8)
        x, _, z = placed.world(lx - back[0], 0, lz - back[1])
        room.set_down(chair, x, z, turn + lturn + room.near(-8, 8))
    return placed


def step(turn: float, length: float) -> tuple[float, float]:
    """(x, z) of a step of `length` in the direction that an object turned by `turn` degrees faces."""
    return float(np.sin(np.radians(turn)) * length), float(np.cos(np.radians(turn)) * length)


_ON_WALL = {
    "painting": 1.4,
    "mirror": 1.2,
    "clock": 1.9,
    "poster": 1.3,
    "flag": 1.8,
    "signboard": 2.0,
    "whiteboard": 0.95,
    "screen": 1.4,
    "towel": 0.9,
}


_ON_TOP = (
    "lamp",
    "vase",
    "flower",
    "book",
    "bottle",
    "glass",
    "plate",
    "food",
    "pot",
    "microwave",
    "computer",
    "monitor",
    "plaything",
    "television",
)


_CENTRE = (
    "table",
    "coffee table",
    "chair",
    "stool",
    "ball",
    "box",
    "pool table",
    "kitchen island",
    "bag",
    "barrel",
    "ottoman",
    "basket",
    "plaything",
)


_SUPPORTS = ("table", "nightstand", "dresser", "desk", "coffee table", "counter", "cabinet", "kitchen island", "bar")


def place_remaining(room: Room) -> None:
    """What the prompt named and the recipe has not placed goes where such things usually go."""
    for name in dict.fromkeys(i.name for i in room.spec.items):
        if name in ("wall", "floor", "ceiling", "pillow", "blanket", "countertop") or (
            name not in MAKERS and name not in ("window", "rug")
        ):
            continue
        for wish in room.wanted(name):
            _place_named(room, name, wish)
    bed = next((o for o in room.scene.objects if o.name in ("bed", "sofa", "armchair")), None)
    if bed is not None and bed.name != "bed":
        for k, wish in enumerate(room.wanted("pillow", 2, 0.0)):
            room.on(bed, room.make("pillow", wish), k)


def _place_named(room: Room, name: str, wish: Wish) -> Placed | None:
    if name == "window":
        small: dict[str, Any] = {"width": 0.7, "height": 0.8, "sill": min(1.5, room.height - 1.3), "dress": False}
        return (
            room.window("back") or room.window("left") or room.window("right")
            or room.window("back", **small) or room.window("left", **small) or room.window("right", **small)
        )  # fmt: skip
    if name == "rug":
        return room.rug(0.0, -room.depth * 0.6, 1.8, 1.3)
    if name in ("light", "chandelier"):
        return room.hung(room.make(name, wish), room.near(-0.3, 0.3) * room.width)
    maker = (
        {"shelf": wall_shelf}.get(name)
        if room.made.get("shelf", 0) == 0 and room.spec.family not in ("shop", "bar")
        else None
    )
    thing = room.make(name, wish, maker)
    if name in _ON_WALL or maker is wall_shelf:
        return room.anywhere(thing, y=min(_ON_WALL.get(name, 1.4), room.height - thing.size[1] - 0.05))
    if name in ("curtain", "blind"):
        thing.parts = [(scale(m, 0.9, 1.9, 1.0), mat) for m, mat in thing.parts]
        thing.size = (0.9, 1.9, 0.12)
        return room.anywhere(thing, y=0.2)
    if name in _ON_TOP and not (wish[0] is not None and "floor" in wish[0].word):
        supports = [o for o in room.scene.objects if o.name in _SUPPORTS and o.thing.spots and o.thing.size[1] < 1.3]
        if supports:
            return room.on(supports[int(room.rng.integers(len(supports)))], thing, int(room.rng.integers(3)))
    if name == "lamp":
        return in_corner(room, room.make(name, wish, floor_lamp))
    if name in _CENTRE:
        placed = room.standing(thing)
        if placed is not None:
            return placed
    return in_corner(room, thing) or room.standing(thing) or _squeeze(room, thing)


def _squeeze(room: Room, thing: Thing) -> Placed | None:
    """A named thing never goes missing: if nothing else, it stands smaller and in the foreground.

    What is larger than a room (a house in a bedroom) becomes a model of it, so that the camera is not inside.
    """
    w, h, d = thing.size
    factor = min(0.7, 0.6 * room.height / h, 0.35 * room.width / w, 0.35 * room.depth / d)
    thing.parts = [(scale(m, factor, factor, factor), mat) for m, mat in thing.parts]
    thing.size = (factor * w, factor * h, factor * d)
    placed = room.standing(thing, tries=30)
    return placed or room.set_down(
        thing, room.near(-0.3, 0.3) * room.width, -room.depth * room.near(0.35, 0.5), room.near(-30, 30)
    )
