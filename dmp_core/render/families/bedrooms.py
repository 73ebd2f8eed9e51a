"""Rooms with beds."""

from __future__ import annotations

from dmp_core.render.families.placing import (
    above,
    ceiling_lamp,
    desk_set,
    in_corner,
    table_lamp,
    windows,
)
from dmp_core.render.mesh import scale
from dmp_core.render.room import Room
from dmp_core.render.scene import Placed


def _bed_dressing(room: Room, bed: Placed) -> None:
    """Pillows, cushions and a throw, in the bed's own frame."""
    _, top, _, w, _ = bed.thing.spots[0]
    depth = bed.thing.size[2]
    pillows = room.wanted("pillow", 2 if w > 1.2 else 1)
    for row_start in range(0, len(pillows), 3):
        row = pillows[row_start : row_start + 3] if len(pillows) != 4 else pillows[row_start // 3 * 2 :][:2]
        _row_on_bed(room, bed, "pillow", row, top, 0.16 + 0.14 * (row_start // 3), w)
    _row_on_bed(room, bed, "cushion", room.wanted("cushion", room.pick(1, 2), 0.35), top, 0.44, w * 0.7)
    throw = room.wanted("blanket", 1, 0.3)
    for k, wish in enumerate(throw[:2]):
        blanket = room.make("blanket", wish)
        length = (1.25 if len(throw) == 1 else 0.6) if room.named("blanket") else 0.6
        blanket.parts = [(scale(m, w + 0.16, (top - 0.08) / 0.34, length / 0.6), mat) for m, mat in blanket.parts]
        x, y, z = bed.world(0, 0.13, depth - length * (k + 1) - 0.03 - 0.02 * k)
        room.made["blanket"] = room.made.get("blanket", 0) + 1
        room.scene.add(blanket, x, y, z, bed.turn)


def _row_on_bed(room: Room, bed: Placed, name: str, wishes: list, top: float, z: float, w: float) -> None:
    n = len(wishes)
    for i, wish in enumerate(wishes):
        thing = room.make(name, wish)
        if n > 1 and thing.size[0] > w / n:  # make them narrower rather than let them merge
            factor = w / n / thing.size[0] * 0.98
            thing.parts = [(scale(m, factor, 1, 1), mat) for m, mat in thing.parts]
        x, y, zz = bed.world((i + 0.5 - n / 2) * w / max(n, 1), top - 0.02, z)
        room.made[name] = room.made.get(name, 0) + 1
        room.scene.add(thing, x, y, zz, bed.turn + room.near(-6, 6))


def _beside(room: Room, bed: Placed, wall: str, side: int, offset: float, name: str) -> Placed | None:
    """An object against the bed's wall, on its right (side 1) or left."""
    thing = room.make(name)
    x, _, z = bed.world(side * (bed.thing.size[0] / 2 + thing.size[0] / 2 + offset), 0, 0)
    placed = room.put(thing, x, z, bed.turn)
    if placed is not None and table_lamp(room, 0.75):
        room.on(placed, room.make("lamp"))
    elif placed is not None and room.chance(0.5):
        room.trinket(placed)
    return placed


def bedroom(room: Room) -> None:
    room.shell()
    wall = room.pick("back", "back", "back", "left", "right")
    bed_thing = room.make("bed")
    at = room.near(-0.7, 0.7) if wall == "back" else room.near(-0.62, -0.5) * room.depth
    bed = room.surely_against(bed_thing, wall, at)
    room.scene.main = bed
    wall = {0.0: "back", 90.0: "left", -90.0: "right"}[bed.turn]
    _bed_dressing(room, bed)
    lamps = len(room.wanted("lamp", 2, 0.8))
    stands = room.wanted("nightstand", room.pick(1, 2, 2), 0.9) or ([(None, 0)] if lamps else [])
    for side, _ in zip(room.pick((1, -1), (-1, 1)), stands[:2] if lamps < 2 else (1, 1), strict=False):
        _beside(room, bed, wall, side, 0.06, "nightstand")
    _bedroom_walls(room, bed, wall)
    x, _, z = bed.world(0, 0, bed.thing.size[2] * 0.45)
    room.rug(x, z, room.near(2.0, 2.7), room.near(1.5, 2.0), bed.turn)
    for _ in room.wanted("bench", 1, 0.12):
        x, _, z = bed.world(0, 0, bed.thing.size[2] + 0.1)
        room.put(room.make("bench"), x, z, bed.turn)
    corners = [w for w in ("left", "right", "back") if w != wall]
    for name, odds in (("wardrobe", 0.5), ("dresser", 0.4), ("desk", 0.25), ("bookcase", 0.15)):
        for wish in room.wanted(name, 1, odds):
            case = room.anywhere(room.make(name, wish), tuple(corners))
            if case is not None and name == "dresser":
                room.trinket(case, 0)
                above(room, case, "mirror", 0.5)
            if case is not None and name == "desk":
                desk_set(room, case, "chair", 0.6)
    for name, odds in (("armchair", 0.25), ("chair", 0.2), ("plant", 0.4)):
        for wish in room.wanted(name, 1, odds):
            in_corner(room, room.make(name, wish))
    ceiling_lamp(room, 0.45)


def _bedroom_walls(room: Room, bed: Placed, wall: str) -> None:
    """Windows and pictures: on the bed's wall beside it, or on another."""
    for _ in room.wanted("window", 1, 0.85):
        choices = (
            [w for w in ("back", "left", "right") if w != wall] if wall != "back" or room.chance(0.45) else ["back"]
        )
        placed = None
        for choice in [*choices, "left", "right", "back"]:
            placed = room.window(choice) if placed is None else placed
    for k, wish in enumerate(room.wanted("painting", room.pick(1, 1, 2), 0.7)):
        art = room.make("painting", wish)
        x, _, z = bed.world((k - 0.0) * 0.9 if k else 0.0, 0, 0)
        along = x if wall == "back" else z
        if room.against(art, wall, along, y=room.near(1.3, 1.5)) is None:
            room.anywhere(art, y=1.4)


def hospital(room: Room) -> None:
    room.shell(wall_texture="plain", floor_texture=room.pick("noise", "tiles"))
    n = len(room.wanted("bed", room.pick(1, 2, 2)))
    for k in range(max(1, n)):
        x = (k - (n - 1) / 2) * 2.0 if n > 1 else room.near(-0.5, 0.5)
        bed = room.set_down(room.make("bed"), x, -room.depth + 0.05, 0.0)
        room.scene.main = room.scene.main or bed
        _bed_dressing(room, bed)
        if room.wanted("curtain", 1, 0.6):
            cloth = room.make("curtain")
            cloth.parts = [(scale(m, 1.2, 2.0, 1.0), mat) for m, mat in cloth.parts]
            room.put(cloth, x + 1.02, -room.depth + 1.1, 90.0, 0.2, solid=False)
    for name, odds in (("nightstand", 0.8), ("cabinet", 0.6), ("chair", 0.6), ("sink", 0.4), ("door", 0.3)):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish))
    for name, odds, y in (("screen", 0.3, 1.6), ("clock", 0.3, 2.0), ("painting", 0.3, 1.5)):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish), y=y)
    windows(room, 1, 0.8, ("left", "right"))
    ceiling_lamp(room, 0.8)
