"""How each family of rooms is furnished. One recipe a family; each only says what goes where."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dmp_core.synthesis.render.furniture import (
    MAKERS,
    base_cabinet,
    floor_lamp,
    kitchen_sink,
    pew,
    wall_cabinet,
    wall_shelf,
)
from dmp_core.synthesis.render.kit import Kit, Thing
from dmp_core.synthesis.render.language import SceneSpec
from dmp_core.synthesis.render.mesh import scale
from dmp_core.synthesis.render.room import Room
from dmp_core.synthesis.render.scene import Placed, Scene

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


def _table_lamp(room: Room, odds: float) -> bool:
    """Whether one more lamp goes onto a table; a floor lamp that was asked for is left for the floor."""
    item = room.spec.find("lamp")
    return bool(room.wanted("lamp", 1 + room.made.get("lamp", 0), odds)) and not (
        item is not None and "floor" in item.word
    )


def _beside(room: Room, bed: Placed, wall: str, side: int, offset: float, name: str) -> Placed | None:
    """An object against the bed's wall, on its right (side 1) or left."""
    thing = room.make(name)
    x, _, z = bed.world(side * (bed.thing.size[0] / 2 + thing.size[0] / 2 + offset), 0, 0)
    placed = room.put(thing, x, z, bed.turn)
    if placed is not None and _table_lamp(room, 0.75):
        room.on(placed, room.make("lamp"))
    elif placed is not None and room.chance(0.5):
        room.trinket(placed)
    return placed


def _bedroom(room: Room) -> None:
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
                _above(room, case, "mirror", 0.5)
            if case is not None and name == "desk":
                _desk_set(room, case, "chair", 0.6)
    for name, odds in (("armchair", 0.25), ("chair", 0.2), ("plant", 0.4)):
        for wish in room.wanted(name, 1, odds):
            _in_corner(room, room.make(name, wish))
    _ceiling_lamp(room, 0.45)


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


def _in_corner(room: Room, thing: Thing) -> Placed | None:
    """In a back corner, turned a little towards the viewer, else anywhere along a wall."""
    for sign in room.pick((1, -1), (-1, 1)):
        w, _, d = thing.size
        reach = max(w, d) * 0.75
        placed = room.put(thing, sign * (room.width / 2 - reach), -room.depth + 0.25, -sign * room.near(15, 40))
        if placed is not None:
            return placed
    return room.anywhere(thing, ("left", "right", "back"))


def _above(room: Room, below: Placed, name: str, odds: float) -> None:
    """Something on the wall over a piece of furniture."""
    for wish in room.wanted(name, 1, odds)[:1]:
        thing = room.make(name, wish)
        x, _, z = below.world(0, 0, 0)
        y = min(below.thing.size[1] + 0.3, room.height - thing.size[1] - 0.1)
        room.put(thing, x, z, below.turn, y)


def _ceiling_lamp(room: Room, odds: float = 0.6) -> None:
    for wish in room.wanted("chandelier", 1, 0.0):
        room.hung(room.make("chandelier", wish))
    for wish in room.wanted("light", 1, odds if not room.made.get("chandelier") else 0.0):
        room.hung(room.make("light", wish))


def _desk_set(room: Room, desk: Placed, seat_name: str, odds: float) -> None:
    """A seat in front of a desk, facing it, and things on top."""
    for wish in room.wanted(seat_name, 1, odds)[:1]:
        seat = room.make(seat_name, wish)
        x, _, z = desk.world(room.near(-0.15, 0.1), 0, desk.thing.size[2] + seat.size[2] * 0.8)
        room.set_down(seat, x, z, desk.turn + 180 + room.near(-25, 25))
    gadget = "computer" if room.named("computer") or (room.chance(0.5) and not room.named("monitor")) else "monitor"
    for wish in room.wanted(gadget, 1, 0.8)[:1]:
        room.on(desk, room.make(gadget, wish), 0)
    if _table_lamp(room, 0.5):
        room.on(desk, room.make("lamp"), 1)
    if room.chance(0.6):
        room.trinket(desk, 2, ("book", "plant", "vase"))


def _windows(room: Room, default: int, odds: float, walls: tuple[str, ...] = ("back", "left", "right"), **kw) -> None:
    for k, _ in enumerate(room.wanted("window", default, odds)):
        for wall in (walls[k % len(walls)], *walls):
            if room.window(wall, **kw) is not None:
                break


def _pictures(room: Room, default: int, odds: float, y: float = 1.4) -> None:
    for wish in room.wanted("painting", default, odds):
        room.anywhere(room.make("painting", wish), y=y)


def _living_room(room: Room) -> None:
    room.shell()
    wall = room.pick("back", "back", "left", "right")
    couch = room.make("sofa")
    at = room.near(-0.6, 0.6) if wall == "back" else -0.55 * room.depth
    sofa = room.surely_against(couch, wall, at)
    room.scene.main = sofa
    for k, wish in enumerate(room.wanted("cushion", room.pick(1, 2, 3), 0.8)):
        room.on(sofa, room.make("cushion", wish), k, dx=0.12 * (k // len(sofa.thing.spots)), turn=room.near(-15, 15))
    room.rug(
        *[float(v) for v in sofa.world(0, 0, sofa.thing.size[2] * 0.6)[[0, 2]]],
        room.near(2.2, 3.0),
        room.near(1.6, 2.0),
        sofa.turn,
        0.75,
    )
    for wish in room.wanted("coffee table", 1, 0.8):
        low = room.make("coffee table", wish)
        tx, _, tz = sofa.world(0, 0, sofa.thing.size[2] + 0.4)
        placed = room.set_down(low, tx, tz, sofa.turn)
        room.trinket(placed, room.pick(0, 1), ("vase", "book", "flower", "food"))
    _above(room, sofa, "painting", 0.75)
    _windows(room, 1, 0.85)
    for name, odds in (("fireplace", 0.25), ("bookcase", 0.45), ("television", 0.35), ("cabinet", 0.3), ("door", 0.15)):
        for wish in room.wanted(name, 1, odds):
            _case(room, name, wish)
    for wish in room.wanted("armchair", 1, 0.6):
        side = room.pick(-1, 1)
        ax, _, az = sofa.world(side * (sofa.thing.size[0] / 2 + 0.5), 0, sofa.thing.size[2] + 0.5)
        chair = room.make("armchair", wish)
        _ = room.put(chair, ax, az, sofa.turn - side * room.near(50, 80)) or _in_corner(room, chair)
    for wish in room.wanted("ottoman", 1, 0.2):
        room.standing(room.make("ottoman", wish))
    for wish in room.wanted("lamp", 1, 0.6):
        _in_corner(room, room.make("lamp", wish, floor_lamp))
    for wish in room.wanted("plant", 1, 0.6):
        _in_corner(room, room.make("plant", wish))
    for wish in room.wanted("shelf", 1, 0.15):
        room.anywhere(room.make("shelf", wish, wall_shelf), y=1.5)
    _ceiling_lamp(room, 0.4)


def _case(room: Room, name: str, wish: Wish) -> Placed | None:
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
            _above(room, placed, room.pick("painting", "mirror"), 0.7)
    return placed


def _kitchen(room: Room) -> None:
    room.palette = _with_floor(room, ("tiles", "checks", "planks", "planks"))
    room.shell(wall_texture=room.pick("plain", "plain", "tiles"))
    wall = room.pick("back", "back", "back", "left")
    runs = [wall] + (["left" if wall == "back" else "back"] if room.chance(0.5) else [])
    body_kit_seed = int(room.rng.integers(1 << 30))
    for wall_ in runs:
        _kitchen_run(room, wall_, body_kit_seed)
    for wish in room.wanted("kitchen island", 1, 0.4):
        island = room.put(room.make("kitchen island", wish), room.near(-0.3, 0.6), -room.near(1.5, 1.9), 0.0)
        if island is not None:
            room.scene.main = island
            room.trinket(island, 0, ("food", "vase", "plant", "bottle"))
            for k, w in enumerate(room.wanted("stool", 2, 0.8)):
                stool = room.make("stool", w)
                room.put(stool, island.position[0] + 0.5 * (k - 0.5), island.position[2] + 0.82, 0.0)
    if not room.made.get("kitchen island"):
        for wish in room.wanted("table", 1, 0.55):
            _table_set(room, room.make("table", wish), (room.near(0.2, 0.8), -room.near(1.3, 1.7)), 2)
    if "left" not in runs or room.named("window"):
        _windows(room, 1, 0.7, ("left", "right"))
    for wish in room.wanted("plant", 1, 0.2):
        _in_corner(room, room.make("plant", wish))
    _ceiling_lamp(room, 0.6)
    if room.scene.main is None:
        room.scene.main = next((o for o in room.scene.objects if o.name in ("stove", "cabinet")), None)


def _with_floor(room: Room, textures: tuple[str, ...]) -> Palette:
    from dataclasses import replace

    from dmp_core.synthesis.render.decor import hsv

    texture = room.pick(*textures)
    colour = room.palette.floor
    if texture in ("tiles", "checks", "marble") and room.palette.floor_texture != texture:
        colour = hsv(room.near(0, 1), room.near(0.04, 0.35), room.near(0.55, 0.9))
    return replace(room.palette, floor_texture=texture, floor=colour)


def _kitchen_run(room: Room, wall: str, seed: int) -> None:
    """Base units, stove, sink and refrigerator along one wall, with worktop and wall units above."""
    length = room.width if wall == "back" else min(room.depth - 0.9, 2.8)
    modules = int((length - 0.05) / 0.62)
    order = ["cabinet"] * modules
    first = not room.made.get("stove")
    places = list(room.rng.permutation(modules)) if modules else []
    middle = min(modules - 1, max(0, modules // 2 + int(room.rng.integers(-1, 2))))
    if first and room.wanted("stove", 1, 0.97):
        order[middle] = "stove"
    if not room.made.get("refrigerator") and room.wanted("refrigerator", 1, 0.75) and modules > 2:
        order[0 if room.chance(0.5) else -1] = "refrigerator"
    sink_at = (
        next((int(p) for p in places if order[int(p)] == "cabinet"), None) if room.wanted("sink", 1, 0.85) else None
    )
    look = np.random.default_rng(seed)
    role_kit = Kit(look, room.palette, room.spec.find("cabinet"))
    body = role_kit.pick("wood", "white", "accent", "fabric")
    start = -room.width / 2 if wall == "back" else -room.depth
    for i, name in enumerate(order):
        t = start + 0.62 * (i + 0.5) + (0.62 if wall != "back" and not first else 0.0)
        thing = _module(room, name, body)
        placed = room.against(thing, wall, t, gap=0.0)
        if placed is None:
            continue
        if name == "stove":
            room.scene.main = placed
            _over_stove(room, placed)
        elif name == "cabinet":
            _worktop(room, placed, seed, i == sink_at)
    if room.chance(0.75):
        _wall_units(room, wall, body, modules)


def _module(room: Room, name: str, body: str) -> Thing:
    if name != "cabinet":
        return room.make(name)
    ask = room.spec.find("cabinet")
    thing = base_cabinet(Kit(room.rng, room.palette, ask), 0.62)
    if ask is None or not (ask.colours or ask.material):  # one finish for the whole run
        finish = Kit(room.rng, room.palette).of(body)
        trim = Kit(room.rng, room.palette).trim(finish, 1.08)
        first = thing.parts[0][1]
        thing.parts = [
            (m, finish if mat == first else (trim if i > 1 and i % 2 == 0 else mat))
            for i, (m, mat) in enumerate(thing.parts)
        ]
    return thing


def _worktop(room: Room, unit: Placed, seed: int, sink: bool) -> None:
    from dmp_core.synthesis.render.furniture import countertop

    top = countertop(Kit(np.random.default_rng(seed), room.palette, room.spec.find("countertop")))
    top.parts = [(scale(m, 0.62, 1, 1), mat) for m, mat in top.parts]
    x, y, z = unit.world(0, 0.88, 0)
    room.scene.add(top, x, y, z, unit.turn)
    room.made["countertop"] = room.made.get("countertop", 0) + 1
    if sink:
        x, y, z = unit.world(0, 0.915, 0.06)
        room.scene.add(kitchen_sink(Kit(room.rng, room.palette, room.spec.find("sink"))), x, y, z, unit.turn)
        room.made["sink"] = 1
        return
    for name, odds in (("microwave", 0.12), ("pot", 0.15), ("bottle", 0.15), ("food", 0.12), ("plate", 0.1)):
        if room.wanted(name, 1, odds):
            x, y, z = unit.world(0, 0.922, 0.12)
            room.made[name] = room.made.get(name, 0) + 1
            room.scene.add(room.make(name), x, y, z, unit.turn)
            return


def _over_stove(room: Room, stove: Placed) -> None:
    for wish in room.wanted("hood", 1, 0.7):
        hood = room.make("hood", wish)
        x, _, z = stove.world(0, 0, 0)
        room.set_down(hood, x, z, stove.turn, 1.5)
    if room.wanted("pot", 1, 0.4):
        room.on(stove, room.make("pot"), room.pick(0, 1))


def _wall_units(room: Room, wall: str, body: str, modules: int) -> None:
    for i in range(max(1, modules // 2)):
        ask = room.spec.find("cabinet")
        thing = wall_cabinet(Kit(room.rng, room.palette, ask))
        if ask is None or not (ask.colours or ask.material):
            kit = Kit(room.rng, room.palette)
            finish = kit.of(body)
            thing.parts = [(m, finish if k == 0 else kit.trim(finish, 1.08)) for k, (m, _) in enumerate(thing.parts)]
        start = -room.width / 2 if wall == "back" else -room.depth
        room.against(thing, wall, start + 1.24 * (i + 0.5) + 0.02, y=1.52)


def _bathroom(room: Room) -> None:
    room.palette = _with_floor(room, ("tiles", "checks", "tiles", "marble"))
    room.shell(wall_texture=room.pick("tiles", "tiles", "plain"))
    tub_wall = room.pick("back", "left", "right")
    for wish in room.wanted("bathtub", 1, 0.85):
        tub = room.against(room.make("bathtub", wish), tub_wall, None if tub_wall == "back" else -room.depth * 0.55)
        room.scene.main = tub or room.scene.main
    for name, odds in (
        ("sink", 0.97),
        ("toilet", 0.85),
        ("shower", 0.0 if room.made.get("bathtub") else 1.0),
        ("washer", 0.12),
        ("cabinet", 0.3),
    ):
        for wish in room.wanted(name, 1, odds):
            placed = room.anywhere(room.make(name, wish))
            room.scene.main = room.scene.main or placed
            if placed is not None and name == "sink":
                _mirror_over_sink(room, placed)
    _windows(room, 1, 0.6, ("back", "right", "left"), width=0.9, height=0.9, sill=1.25)
    for wish in room.wanted("towel", 1, 0.75):
        room.anywhere(room.make("towel", wish), y=0.9)
    room.rug(room.near(-0.3, 0.3), -room.depth * 0.55, 1.0, 0.65, 0.0, 0.6)
    for name, odds in (("plant", 0.3), ("basket", 0.35), ("shelf", 0.2)):
        for wish in room.wanted(name, 1, odds):
            thing = room.make(name, wish, wall_shelf if name == "shelf" else None)
            _ = room.anywhere(thing, y=1.4) if name == "shelf" else _in_corner(room, thing)
    _ceiling_lamp(room, 0.5)


def _mirror_over_sink(room: Room, sink: Placed) -> None:
    for wish in room.wanted("mirror", 1, 0.9)[:1]:
        x, _, z = sink.world(0, 0, 0)
        room.put(room.make("mirror", wish), x, z, sink.turn, 1.15)


def _office(room: Room) -> None:
    room.shell(floor_texture=room.pick("planks", "carpet", "carpet", "noise"))
    wall = room.pick("back", "back", "left", "right")
    table = room.make("desk")
    desk = room.surely_against(table, wall, room.near(-0.5, 0.5) if wall == "back" else -0.5 * room.depth)
    room.scene.main = desk
    _desk_set(room, desk, "chair" if room.named("chair") else "swivel chair", 0.95)
    for _, wish in zip(range(3), room.wanted("desk", 1, 0.0), strict=False):
        extra = room.anywhere(room.make("desk", wish))
        if extra is not None:
            _desk_set(room, extra, "swivel chair", 0.8)
    _windows(room, 1, 0.8)
    for name, odds in (("bookcase", 0.75), ("cabinet", 0.45), ("door", 0.25)):
        for wish in room.wanted(name, 1, odds):
            _case(room, name, wish)
    for name, odds, y in (
        ("whiteboard", 0.3, 0.95),
        ("painting", 0.45, 1.4),
        ("clock", 0.35, 1.9),
        ("shelf", 0.25, 1.5),
    ):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish, wall_shelf if name == "shelf" else None), y=y)
    room.rug(0.0, -room.depth * 0.55, 2.2, 1.6, 0.0, 0.35)
    for name, odds in (("plant", 0.6), ("box", 0.25), ("armchair", 0.12)):
        for wish in room.wanted(name, 1, odds):
            _in_corner(room, room.make(name, wish))
    _ceiling_lamp(room, 0.6)


def _table_set(
    room: Room, table: Thing, at: tuple[float, float], chairs: int, seat: str = "chair", turn: float | None = None
) -> Placed | None:
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
        back = rot_offset(lturn, chair.size[2] * 0.8)
        x, _, z = placed.world(lx - back[0], 0, lz - back[1])
        room.set_down(chair, x, z, turn + lturn + room.near(-8, 8))
    return placed


def rot_offset(turn: float, length: float) -> tuple[float, float]:
    """(x, z) of a step of `length` in the direction that an object turned by `turn` degrees faces."""
    return float(np.sin(np.radians(turn)) * length), float(np.cos(np.radians(turn)) * length)


def _dining_room(room: Room) -> None:
    room.shell()
    table = _table_set(room, room.make("table"), (room.near(-0.3, 0.3), -room.depth * 0.55), room.pick(4, 4, 6))
    room.scene.main = table
    room.rug(table.position[0], table.position[2] - 0.6, 3.0, 2.4, 0.0, 0.5)
    extras = [n for n in ("vase", "flower", "food", "plate", "glass", "bottle") if room.named(n)]
    room.on(table, room.make(extras[0] if extras else room.pick("vase", "flower", "food")), 0)
    for k, name in enumerate(extras[1:] or (("plate",) if room.chance(0.6) else ())):
        for i, wish in enumerate(room.wanted(name, 2)):
            room.on(table, room.make(name, wish), 1 + (k + i) % 2, dz=0.2 * (i // 2) - 0.1)
    for wish in room.wanted("chandelier", 1, 0.55 if not room.named("light") else 0.0):
        room.hung(room.make("chandelier", wish), table.position[0], table.position[2] + 0.4)
    _windows(room, 2, 0.85)
    for name, odds in (("cabinet", 0.6), ("fireplace", 0.2), ("door", 0.25), ("bookcase", 0.1)):
        for wish in room.wanted(name, 1, odds):
            _case(room, name, wish)
    _pictures(room, 1, 0.7)
    for wish in room.wanted("plant", 1, 0.45):
        _in_corner(room, room.make("plant", wish))


def _bar(room: Room) -> None:
    room.shell(wall_texture=room.pick("brick", "plain", "motif"))
    counter = room.surely_against(room.make("bar"), "back", room.near(-0.3, 0.3), gap=1.1)
    room.scene.main = counter
    x = counter.position[0]
    for dx in (-0.9, 0.9):
        room.put(room.make("shelf", (room.spec.find("shelf"), 0)), x + dx, -room.depth + 0.02, 0.0)
    for k in range(4):
        if room.chance(0.8):
            room.on(counter, room.make(room.pick("bottle", "glass", "bottle")), k)
    for k, wish in enumerate(room.wanted("stool", 3, 0.95)):
        room.set_down(room.make("stool", wish), x - 0.9 + 0.65 * k, counter.position[2] + 0.72, 0.0)
    for wish in room.wanted("light", 3, 0.8):
        room.hung(room.make("light", wish), x + room.near(-1.3, 1.3), counter.position[2] + 0.4)
    for wish in room.wanted("pool table", 1, 0.2):
        room.standing(room.make("pool table", wish), 0.0)
    for wish in room.wanted("table", 1, 0.45):
        _table_set(room, room.make("table", wish), (room.pick(-1, 1) * room.width * 0.25, -1.5), 2)
    for name, odds, y in (("signboard", 0.5, 2.1), ("painting", 0.5, 1.5), ("mirror", 0.15, 1.3)):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish), y=y)
    for wish in room.wanted("barrel", 1, 0.3):
        _in_corner(room, room.make("barrel", wish))


def _corridor(room: Room) -> None:
    room.shell(floor_texture=room.pick("planks", "tiles", "carpet", "marble", "checks"))
    for k in range(int(room.depth / 1.9)):
        for wall in ("left", "right"):
            if (room.chance(0.6) and room.spec.find("door") is None) or room.named("door"):
                room.against(room.make("door"), wall, -0.9 - 1.9 * k)
    end = room.pick("door", "window", "painting")
    if end == "window":
        room.window("back", 0.0, width=1.0, dress=False)
    else:
        room.against(room.make(end), "back", 0.0, y=0.0 if end == "door" else 1.2)
    room.scene.main = room.scene.objects[-1] if end == "door" else None
    room.rug(0.0, -room.depth * 0.75, 0.9, room.depth * 0.6, 0.0, 0.5)
    for k in range(int(room.depth / 2.6)):
        if not room.spec.find("light") or room.named("light"):
            room.hung(room.make("light"), 0.0, -1.6 - 2.6 * k)
    for name, odds in (("plant", 0.4), ("bench", 0.3), ("box", 0.1), ("radiator", 0.3)):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish), ("left", "right"))
    for wish in room.wanted("painting", 3, 0.7):
        room.anywhere(room.make("painting", wish), ("left", "right"), y=1.35)


def _staircase(room: Room) -> None:
    room.shell()
    flight = room.make("stairs")
    wall = room.pick("back", "back", "left", "right")
    stairs = room.surely_against(flight, wall, room.near(-1.0, 1.0) if wall == "back" else -0.6 * room.depth)
    room.scene.main = stairs
    if room.wanted("railing", 1, 0.8):
        _stair_rail(room, stairs)
    _windows(room, 1, 0.7, sill=1.6)
    for name, odds in (("door", 0.5), ("plant", 0.5), ("column", 0.2), ("cabinet", 0.2)):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish))
    room.rug(0.0, -1.9, 1.8, 1.2, 0.0, 0.5)
    _pictures(room, 2, 0.6, 1.5)
    for wish in room.wanted("chandelier", 1, 0.4):
        room.hung(room.make("chandelier", wish))
    _ceiling_lamp(room, 0.4)


def _stair_rail(room: Room, stairs: Placed) -> None:
    """Posts and a sloping rail on the flight's open side."""
    from dmp_core.synthesis.render.mesh import box, rotate

    w, h, d = stairs.thing.size
    kit = Kit(room.rng, room.palette, room.spec.find("railing"))
    paint = kit.main(kit.pick("wood", "dark", "white"))
    rail = Thing("railing", (0.08, 1.0, d), primary=paint)
    slope = np.degrees(np.arctan2(h, d))
    rail.add(rotate(box(0.07, 0.07, np.hypot(h, d)), "x", slope), paint, 0, h / 2 + 0.92, d / 2)
    for i in range(8):
        t = (i + 0.5) / 8
        rail.add(box(0.04, 0.9, 0.04), paint, 0, (1 - t) * h, t * d)
    x, y, z = stairs.world(room.pick(-1, 1) * w / 2, 0, 0)
    room.made["railing"] = 1
    room.scene.add(rail, x, y, z, stairs.turn)


def _shop(room: Room) -> None:
    room.shell(floor_texture=room.pick("tiles", "planks", "noise", "marble"))
    filling = "bookcase" if any(w in room.spec.keyword for w in ("book", "video")) else "shelf"
    for wall, n in (("back", 3), ("left", 3), ("right", 3)):
        for _ in range(n):
            if room.wanted(filling, 1, 0.85) or not room.spec.find(filling):
                room.against(room.make(filling, (room.spec.find(filling), 0)), wall)
    counter = room.put(
        room.make("counter"), room.pick(-1, 1) * room.width * 0.2, -room.depth * room.near(0.4, 0.6), room.near(-30, 30)
    )
    room.scene.main = counter
    if counter is not None:
        room.on(counter, room.make(room.pick("computer", "flower", "food", "bag")), 0)
        room.trinket(counter, 2, ("bottle", "bag", "basket", "plant"))
    for name, odds, n in (
        ("box", 0.5, 2),
        ("basket", 0.5, 2),
        ("bag", 0.2, 1),
        ("plant", 0.4, 1),
        ("table", 0.3, 1),
        ("plaything", 0.15, 1),
    ):
        for wish in room.wanted(name, n, odds):
            room.standing(room.make(name, wish))
    for name, odds in (("signboard", 0.85), ("poster", 0.4), ("clock", 0.2)):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish), y=min(2.15, room.height - 0.9))
    for k in range(3):
        room.hung(room.make("light"), (k - 1) * room.width * 0.28, -room.depth * 0.45)


def _hall(room: Room) -> None:
    room.shell(
        wall_texture=room.pick("plain", "stone", "marble", "motif"),
        floor_texture=room.pick("marble", "checks", "tiles", "planks", "stone"),
    )
    if room.wanted("column", 6, 0.85):
        column = room.make("column")
        column.parts = [(scale(m, 1.6, room.height / 3.0, 1.6), mat) for m, mat in column.parts]
        for k in range(int(room.depth / 3.2)):
            for sx in (-1, 1):
                room.put(column, sx * room.width * 0.32, -1.6 - 3.2 * k, 0.0, solid=False)
    room.scene.main = None
    kind = (
        "seats"
        if any(
            w in room.spec.keyword
            for w in ("theater", "cinema", "movie", "auditorium", "amphitheater", "orchestra", "arena")
        )
        else room.pick("pews", "open", "open")
    )
    if (
        "church" in room.spec.keyword
        or "chapel" in room.spec.keyword
        or "cathedral" in room.spec.keyword
        or room.named("bench")
    ):
        kind = "pews"
    if kind != "open":
        _rows(room, "seat" if kind == "seats" else "bench", 4)
    if kind == "seats":
        stage = room.against(room.make("stage"), "back", 0.0)
        room.scene.main = stage
        room.against(room.make("screen"), "back", 0.0, y=1.4)
    room.rug(0.0, -room.depth * 0.85, 1.6, room.depth * 0.7, 0.0, 0.5)
    for k in range(int(room.depth / 3.2)):
        for wall in ("left", "right"):
            if room.chance(0.7) and not (room.spec.find("window") and not room.named("window")):
                room.window(
                    wall, -2.2 - 3.2 * k, width=1.2, height=room.height * 0.45, sill=room.height * 0.32, dress=False
                )
    _hall_end(room)
    for wish in room.wanted("chandelier", 2, 0.6):
        lamp = room.make("chandelier", wish)
        lamp.parts = [(scale(m, 1.8, 1.8, 1.8), mat) for m, mat in lamp.parts]
        room.hung(lamp, 0.0, -room.depth * room.near(0.3, 0.7))
    for name, odds in (("sculpture", 0.4), ("plant", 0.4), ("flag", 0.2), ("stairs", 0.15)):
        for wish in room.wanted(name, 2, odds):
            thing = room.make(name, wish)
            _ = (
                room.anywhere(thing, y=2.4)
                if name == "flag"
                else room.standing(
                    thing, 0.0, region=(-room.width * 0.45, room.width * 0.45, -room.depth * 0.9, -room.depth * 0.4)
                )
            )


def _hall_end(room: Room) -> None:
    """The far wall: a great window, a door, or pictures."""
    end = room.pick("window", "door", "painting")
    if end == "window" or room.named("window"):
        room.window("back", 0.0, width=2.6, height=room.height * 0.5, sill=room.height * 0.3, dress=False)
    elif end == "door":
        door = room.make("door")
        door.parts = [(scale(m, 1.8, 1.6, 1.0), mat) for m, mat in door.parts]
        room.against(door, "back", 0.0)
    for wish in room.wanted("painting", 3, 0.7):
        art = room.make("painting", wish)
        art.rescale(1.4)
        room.anywhere(art, y=1.7)


def _rows(room: Room, name: str, rows: int) -> None:
    """Rows of seats that face the far wall, with an aisle down the middle."""
    maker = pew if name == "bench" else None
    model = room.make(name, None, maker)
    w = model.size[0] + 0.04
    per_side = max(1, int(room.width * 0.28 / w))
    for r in range(rows):
        for sx in (-1, 1):
            for c in range(per_side):
                room.set_down(model, sx * (0.75 + w / 2 + c * w), -room.depth * 0.25 - 1.35 * r + 0.6, 180.0)


def _classroom(room: Room) -> None:
    room.shell(floor_texture=room.pick("planks", "noise", "tiles"))
    for wish in room.wanted("whiteboard", 1, 0.97):
        board = room.against(room.make("whiteboard", wish), "back", room.near(-0.5, 0.5), y=0.95)
        room.scene.main = board
    desk_model, chair_model = room.make("desk"), room.make("chair")
    columns, rows = room.pick(3, 2), room.pick(2, 3)
    for r in range(rows):
        for c in range(columns):
            x, z = (c - (columns - 1) / 2) * 1.9, -room.depth * 0.68 + 1.5 * r
            room.set_down(desk_model, x, z + 0.6, 180.0)
            room.set_down(chair_model, x, z + 1.15, 180.0 + room.near(-10, 10))
    _windows(room, 3, 0.95, (room.pick("left", "right"),), width=1.5)
    for name, odds in (("bookcase", 0.6), ("door", 0.5), ("cabinet", 0.3), ("box", 0.2)):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish))
    for name, odds, y in (("clock", 0.6, 2.2), ("poster", 0.7, 1.3), ("flag", 0.3, 1.9), ("screen", 0.1, 1.5)):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish), y=y)
    for k in range(2):
        room.hung(room.make("light"), (k - 0.5) * 3, -room.depth * 0.5)


def _library(room: Room) -> None:
    room.shell()
    for wall in ("back", "back", "back", "back", "left", "left", "left", "right", "right", "right"):
        if room.chance(0.85):
            room.against(room.make("bookcase", (room.spec.find("bookcase"), 0)), wall)
    if room.chance(0.7) or room.named("table"):
        table = _table_set(room, room.make("table"), (room.near(-0.4, 0.4), -room.depth * 0.5), 2)
        room.scene.main = table
        room.on(table, room.make("book"), 0)
        if _table_lamp(room, 0.8):
            room.on(table, room.make("lamp"), 1)
    for wish in room.wanted("armchair", 1, 0.5):
        room.standing(room.make("armchair", wish))
    for wish in room.wanted("ladder", 1, 0.35):
        room.standing(
            room.make("ladder", wish),
            0.0,
            region=(-room.width * 0.4, room.width * 0.4, -room.depth + 0.5, -room.depth + 0.7),
        )
    room.rug(0.0, -room.depth * 0.65, 2.6, 2.0, 0.0, 0.6)
    _windows(room, 1, 0.5, sill=1.0)
    _ceiling_lamp(room, 0.6)


def _lobby(room: Room) -> None:
    room.shell(floor_texture=room.pick("marble", "tiles", "checks", "carpet"))
    counter = room.against(room.make("counter"), room.pick("back", "back", "left"), gap=1.0)
    room.scene.main = counter
    if counter is not None:
        room.on(counter, room.make(room.pick("computer", "monitor", "flower")), 0)
    model = room.make("seat")
    side = room.pick(-1, 1)
    for r in range(room.pick(1, 2)):
        for k in range(4):
            room.put(
                model, side * (room.width * 0.12 + 0.58 * k), -room.depth * 0.42 + 1.4 * r - 0.4, 180.0 if r else 0.0
            )
    for name, odds, n in (("column", 0.4, 2), ("plant", 0.8, 2), ("bag", 0.4, 2), ("coffee table", 0.2, 1)):
        for wish in room.wanted(name, n, odds):
            thing = room.make(name, wish)
            if name == "column":
                thing.parts = [(scale(m, 1.3, room.height / 3.0, 1.3), mat) for m, mat in thing.parts]
            room.standing(
                thing, 0.0, region=(-room.width * 0.45, room.width * 0.45, -room.depth * 0.9, -room.depth * 0.3)
            )
    _windows(room, 2, 0.8, ("left", "right", "back"), width=2.4, height=1.9, sill=0.5, dress=False)
    for name, odds, y in (("signboard", 0.8, 2.2), ("screen", 0.4, 1.5), ("clock", 0.5, 2.2), ("painting", 0.4, 1.5)):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish), y=y)
    for k in range(3):
        room.hung(room.make("light"), (k - 1) * room.width * 0.3, -room.depth * 0.5)


def _hospital(room: Room) -> None:
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
    _windows(room, 1, 0.8, ("left", "right"))
    _ceiling_lamp(room, 0.8)


def _laboratory(room: Room) -> None:
    room.shell(floor_texture=room.pick("tiles", "noise"))
    for k in range(2):
        bench = room.make("table")
        bench.parts = [(scale(m, 1.25, 1.15, 1.0), mat) for m, mat in bench.parts]
        placed = room.set_down(bench, room.near(-0.3, 0.3), -room.depth * (0.72 - 0.35 * k), 0.0)
        bench.spots = [(x, 0.865, 0.3, 0.3, 0.4) for x in (-0.7, -0.35, 0.0, 0.35, 0.7)]
        room.scene.main = placed
        for spot in range(5):
            if room.chance(0.75):
                room.on(placed, room.make(room.pick("bottle", "glass", "pot", "monitor", "bottle")), spot)
        for i in range(2):
            if room.chance(0.7):
                room.put(room.make("stool"), placed.position[0] + (i - 0.5) * 1.2, placed.position[2] + 1.1, 0.0)
    for name, odds, n in (
        ("cabinet", 0.9, 2),
        ("shelf", 0.7, 1),
        ("sink", 0.6, 1),
        ("tank", 0.3, 1),
        ("refrigerator", 0.3, 1),
        ("door", 0.3, 1),
    ):
        for wish in room.wanted(name, n, odds):
            room.anywhere(room.make(name, wish))
    _windows(room, 1, 0.6)
    for k in range(2):
        room.hung(room.make("light"), (k - 0.5) * 2.4, -room.depth * 0.5)


def _workshop(room: Room) -> None:
    room.shell(wall_texture=room.pick("brick", "noise", "plain"), floor_texture=room.pick("noise", "noise", "planks"))
    kind = room.pick("belt", "bench", "store")
    if kind == "belt" or room.named("conveyer belt"):
        belt = room.set_down(
            room.make("conveyer belt"), room.near(-0.5, 0.5), -room.depth * 0.5, room.pick(0.0, 30.0, -30.0)
        )
        room.scene.main = belt
        for spot in range(3):
            room.on(belt, room.make("box"), spot)
    elif kind == "bench":
        bench = room.set_down(room.make("table"), room.near(-0.6, 0.6), -room.depth * 0.45, room.near(-20, 20))
        room.scene.main = bench
        room.on(bench, room.make(room.pick("box", "pot", "bottle")), 1)
    for name, odds, n in (
        ("shelf", 0.9, 3),
        ("tank", 0.55, 2),
        ("ladder", 0.4, 1),
        ("cabinet", 0.4, 1),
        ("door", 0.3, 1),
    ):
        for wish in room.wanted(name, n, odds):
            room.anywhere(room.make(name, wish))
    for name, odds, n in (("box", 0.9, 4), ("barrel", 0.7, 3), ("column", 0.4, 2), ("stool", 0.3, 1)):
        for wish in room.wanted(name, n, odds):
            thing = room.make(name, wish)
            if name == "column":
                thing.parts = [(scale(m, 0.8, room.height / 3.0, 0.8), mat) for m, mat in thing.parts]
            placed = room.standing(
                thing, region=(-room.width * 0.42, room.width * 0.42, -room.depth * 0.85, -room.depth * 0.3)
            )
            if placed is not None and name == "box" and room.chance(0.5):
                top = placed.thing.size[1]
                room.scene.add(room.make("box", wish), placed.position[0], top, placed.position[2], placed.turn + 10)
    _windows(room, 2, 0.8, ("back", "left", "right"), width=2.0, height=1.2, sill=2.0, dress=False)
    for k in range(2):
        room.hung(room.make("light"), (k - 0.5) * 3.0, -room.depth * 0.5)


def _cellar(room: Room) -> None:
    room.shell(wall_texture=room.pick("stone", "stone", "brick"), floor_texture=room.pick("stone", "noise"))
    for wall in ("back", "left", "right"):
        for _ in range(4):
            barrel = room.make("barrel")
            if room.wanted("barrel", 4, 0.85) or room.chance(0.7):
                room.against(barrel, wall)
    room.scene.main = next((o for o in room.scene.objects if o.name == "barrel"), None)
    for name, odds, n in (("box", 0.7, 2), ("basket", 0.4, 1), ("bench", 0.3, 1), ("pot", 0.4, 1)):
        for wish in room.wanted(name, n, odds):
            room.standing(room.make(name, wish))
    for wish in room.wanted("shelf", 1, 0.5):
        room.anywhere(room.make("shelf", wish))
    for wish in room.wanted("lamp", 2, 0.9):
        room.standing(room.make("lamp", wish, floor_lamp))
    for sx in (-1, 1):
        if room.wanted("column", 2, 0.7):
            column = room.make("column")
            column.parts = [(scale(m, 1.2, room.height / 3.0, 1.2), mat) for m, mat in column.parts]
            room.put(column, sx * room.width * 0.33, -room.depth * 0.5, 0.0)


def _gym(room: Room) -> None:
    room.shell(wall_texture=room.pick("plain", "brick", "plain"), floor_texture="court")
    floor = next(o for o in room.scene.objects if o.name == "floor")
    mesh, material = floor.parts[0]
    uv = (mesh.uv - mesh.uv.min(0)) / (mesh.uv.max(0) - mesh.uv.min(0))
    from dataclasses import replace

    court = replace(material, second=room.palette.accent, period=1.0)
    floor.parts = [(mesh._replace(uv=uv), court if material.texture == "court" else material)]
    for wall in room.pick(("left",), ("right",), ("left", "right")):
        for k in range(2):
            room.against(room.make("grandstand"), wall, -room.depth * 0.72 + 4.0 * k)
    room.scene.main = next((o for o in room.scene.objects if o.name == "grandstand"), None)
    for name, odds, n in (("ball", 0.9, 3), ("bench", 0.5, 1), ("box", 0.3, 1)):
        for wish in room.wanted(name, n, odds):
            thing = room.make(name, wish)
            thing.parts = [(scale(m, 1.4, 1.4, 1.4), mat) for m, mat in thing.parts]
            room.standing(thing, region=(-room.width * 0.25, room.width * 0.25, -room.depth * 0.6, -room.depth * 0.25))
    for k in range(3):
        room.window("back", (k - 1) * 3.0, width=2.0, height=1.4, sill=room.height * 0.55, dress=False)
    for name, odds, y in (("signboard", 0.7, 2.6), ("flag", 0.5, 3.0), ("clock", 0.4, 3.0)):
        for wish in room.wanted(name, 1, odds):
            room.against(room.make(name, wish), "back", y=y)
    for k in range(4):
        room.hung(room.make("light"), (k % 2 - 0.5) * 5.0, -room.depth * (0.35 + 0.3 * (k // 2)))


def _pool(room: Room) -> None:
    room.palette = _with_floor(room, ("tiles", "stone"))
    room.shell(wall_texture=room.pick("tiles", "plain", "stone"))
    room.scene.main = room.set_down(room.make("swimming pool"), room.near(-0.4, 0.4), -room.depth * 0.78, 0.0)
    for wall in ("left", "right"):
        for k in range(2):
            room.window(wall, -2.4 - 2.6 * k, width=1.8, height=1.9, sill=0.5, dress=False)
    _windows(room, 1, 0.8, ("back",), width=2.6, height=1.8, sill=0.6, dress=False)
    for name, odds, n in (("bench", 0.7, 2), ("plant", 0.9, 2), ("towel", 0.2, 1), ("column", 0.2, 1)):
        for wish in room.wanted(name, n, odds):
            room.anywhere(room.make(name, wish), y=0.9 if name == "towel" else 0.0)
    for k in range(2):
        room.hung(room.make("light"), (k - 0.5) * 3.0, -room.depth * 0.5)


def _vehicle(room: Room) -> None:
    room.shell(wall_texture="plain", floor_texture=room.pick("carpet", "noise"))
    model = room.make("seat")
    back_facing = room.chance(0.7)
    rows = int(room.depth / 1.0)
    for r in range(rows):
        for sx in (-1, 1):
            for c in (0, 1):
                x = sx * (room.width / 2 - 0.32 - 0.57 * c)
                room.set_down(
                    model,
                    x,
                    -room.depth + 0.6 + 1.0 * r + (0.62 if back_facing else 0.0),
                    180.0 if back_facing else 0.0,
                )
    room.scene.main = next(o for o in room.scene.objects if o.name == "seat")
    for r in range(rows):
        for wall in ("left", "right"):
            room.window(wall, -room.depth + 0.8 + 1.15 * r, width=0.62, height=0.62, sill=0.95, dress=False)
    room.against(room.make(room.pick("door", "screen")), "back", 0.0, y=0.0 if room.height < 2.2 else 0.6)
    for k in range(int(room.depth / 2)):
        room.hung(room.make("light"), 0.0, -1.2 - 2.0 * k)
    for wish in room.wanted("bag", 1, 0.5):
        room.standing(room.make("bag", wish), region=(-0.2, 0.2, -room.depth * 0.6, -2.0))


RECIPES: dict[str, Callable[[Room], None]] = {
    "bedroom": _bedroom, "living_room": _living_room, "kitchen": _kitchen, "bathroom": _bathroom, "office": _office,
    "dining_room": _dining_room, "bar": _bar, "corridor": _corridor, "staircase": _staircase, "shop": _shop,
    "hall": _hall, "classroom": _classroom, "library": _library, "lobby": _lobby, "hospital": _hospital,
    "laboratory": _laboratory, "workshop": _workshop, "cellar": _cellar, "gym": _gym, "pool": _pool,
    "vehicle": _vehicle,
}  # fmt: skip

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
        small = {"width": 0.7, "height": 0.8, "sill": min(1.5, room.height - 1.3), "dress": False}
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
        return _in_corner(room, room.make(name, wish, floor_lamp))
    if name in _CENTRE:
        placed = room.standing(thing)
        if placed is not None:
            return placed
    return _in_corner(room, thing) or room.standing(thing) or _squeeze(room, thing)


def _squeeze(room: Room, thing: Thing) -> Placed | None:
    """A named thing never goes missing: if nothing else, it stands smaller and in the foreground."""
    thing.parts = [(scale(m, 0.7, 0.7, 0.7), mat) for m, mat in thing.parts]
    thing.size = tuple(0.7 * s for s in thing.size)
    placed = room.standing(thing, tries=30)
    return placed or room.set_down(
        thing, room.near(-0.3, 0.3) * room.width, -room.depth * room.near(0.35, 0.5), room.near(-30, 30)
    )


def build_room(spec: SceneSpec, rng: np.random.Generator) -> tuple[Scene, Room]:
    """An indoor scene, without its camera."""
    size = tuple(float(rng.uniform(*span)) for span in _SIZES[spec.family])
    room = Room(spec, rng, size)
    room.sun()
    room.fill_light()
    RECIPES[spec.family](room)
    place_remaining(room)
    return room.scene, room
