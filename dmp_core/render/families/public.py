"""Rooms for many people, and for goods and machines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dmp_core.render.families.placing import (
    ceiling_lamp,
    in_corner,
    pictures,
    table_set,
    windows,
    with_floor,
)
from dmp_core.render.furniture.seats import pew
from dmp_core.render.furniture.trinkets import floor_lamp
from dmp_core.render.kit import Kit, Thing
from dmp_core.render.mesh import box, rotate, scale
from dmp_core.render.room import Room
from dmp_core.render.scene import Placed


def bar(room: Room) -> None:
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
        table_set(room, room.make("table", wish), (room.pick(-1, 1) * room.width * 0.25, -1.5), 2)
    for name, odds, y in (("signboard", 0.5, 2.1), ("painting", 0.5, 1.5), ("mirror", 0.15, 1.3)):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish), y=y)
    for wish in room.wanted("barrel", 1, 0.3):
        in_corner(room, room.make("barrel", wish))


def corridor(room: Room) -> None:
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


def staircase(room: Room) -> None:
    room.shell()
    flight = room.make("stairs")
    wall = room.pick("back", "back", "left", "right")
    stairs = room.surely_against(flight, wall, room.near(-1.0, 1.0) if wall == "back" else -0.6 * room.depth)
    room.scene.main = stairs
    if room.wanted("railing", 1, 0.8):
        _stair_rail(room, stairs)
    windows(room, 1, 0.7, sill=1.6)
    for name, odds in (("door", 0.5), ("plant", 0.5), ("column", 0.2), ("cabinet", 0.2)):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish))
    room.rug(0.0, -1.9, 1.8, 1.2, 0.0, 0.5)
    pictures(room, 2, 0.6, 1.5)
    for wish in room.wanted("chandelier", 1, 0.4):
        room.hung(room.make("chandelier", wish))
    ceiling_lamp(room, 0.4)


def _stair_rail(room: Room, stairs: Placed) -> None:
    """Posts and a sloping rail on the flight's open side."""
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


def shop(room: Room) -> None:
    room.shell(floor_texture=room.pick("tiles", "planks", "noise", "marble"))
    filling = "bookcase" if room.spec.kind == "books" else "shelf"
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


def hall(room: Room) -> None:
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
    kind = "seats" if room.spec.kind == "seats" else room.pick("pews", "open", "open")
    if room.spec.kind == "pews" or room.named("bench"):
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


def lobby(room: Room) -> None:
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
    windows(room, 2, 0.8, ("left", "right", "back"), width=2.4, height=1.9, sill=0.5, dress=False)
    for name, odds, y in (("signboard", 0.8, 2.2), ("screen", 0.4, 1.5), ("clock", 0.5, 2.2), ("painting", 0.4, 1.5)):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish), y=y)
    for k in range(3):
        room.hung(room.make("light"), (k - 1) * room.width * 0.3, -room.depth * 0.5)


def workshop(room: Room) -> None:
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
    windows(room, 2, 0.8, ("back", "left", "right"), width=2.0, height=1.2, sill=2.0, dress=False)
    for k in range(2):
        room.hung(room.make("light"), (k - 0.5) * 3.0, -room.depth * 0.5)


def cellar(room: Room) -> None:
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


def gym(room: Room) -> None:
    room.shell(wall_texture=room.pick("plain", "brick", "plain"), floor_texture="court")
    floor = next(o for o in room.scene.objects if o.name == "floor")
    mesh, material = floor.parts[0]
    uv = (mesh.uv - mesh.uv.min(0)) / (mesh.uv.max(0) - mesh.uv.min(0))
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


def pool(room: Room) -> None:
    room.palette = with_floor(room, ("tiles", "stone"))
    room.shell(wall_texture=room.pick("tiles", "plain", "stone"))
    room.scene.main = room.set_down(room.make("swimming pool"), room.near(-0.4, 0.4), -room.depth * 0.78, 0.0)
    for wall in ("left", "right"):
        for k in range(2):
            room.window(wall, -2.4 - 2.6 * k, width=1.8, height=1.9, sill=0.5, dress=False)
    windows(room, 1, 0.8, ("back",), width=2.6, height=1.8, sill=0.6, dress=False)
    for name, odds, n in (("bench", 0.7, 2), ("plant", 0.9, 2), ("towel", 0.2, 1), ("column", 0.2, 1)):
        for wish in room.wanted(name, n, odds):
            room.anywhere(room.make(name, wish), y=0.9 if name == "towel" else 0.0)
    for k in range(2):
        room.hung(room.make("light"), (k - 0.5) * 3.0, -room.depth * 0.5)


def vehicle(room: Room) -> None:
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
