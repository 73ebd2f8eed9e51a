"""Living, bathing, eating and working."""

from __future__ import annotations

from dmp_core.render.families.placing import (
    above,
    case,
    ceiling_lamp,
    desk_set,
    in_corner,
    pictures,
    table_lamp,
    table_set,
    windows,
    with_floor,
)
from dmp_core.render.furniture.tables import wall_shelf
from dmp_core.render.furniture.trinkets import floor_lamp
from dmp_core.render.mesh import scale
from dmp_core.render.room import Room
from dmp_core.render.scene import Placed


def living_room(room: Room) -> None:
    room.shell()
    wall = room.pick("back", "back", "left", "right")
    couch = room.make("sofa")
    at = room.near(-0.6, 0.6) if wall == "back" else -0.55 * room.depth
    sofa = room.surely_against(couch, wall, at)
    room.scene.main = sofa
    for k, wish in enumerate(room.wanted("cushion", room.pick(1, 2, 3), 0.8)):
        room.on(sofa, room.make("cushion", wish), k, dx=0.12 * (k // len(sofa.thing.spots)), turn=room.near(-15, 15))
    x, _, z = sofa.world(0, 0, sofa.thing.size[2] * 0.6)
    room.rug(
        float(x),
        float(z),
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
    above(room, sofa, "painting", 0.75)
    windows(room, 1, 0.85)
    for name, odds in (("fireplace", 0.25), ("bookcase", 0.45), ("television", 0.35), ("cabinet", 0.3), ("door", 0.15)):
        for wish in room.wanted(name, 1, odds):
            case(room, name, wish)
    for wish in room.wanted("armchair", 1, 0.6):
        side = room.pick(-1, 1)
        ax, _, az = sofa.world(side * (sofa.thing.size[0] / 2 + 0.5), 0, sofa.thing.size[2] + 0.5)
        chair = room.make("armchair", wish)
        _ = room.put(chair, ax, az, sofa.turn - side * room.near(50, 80)) or in_corner(room, chair)
    for wish in room.wanted("ottoman", 1, 0.2):
        room.standing(room.make("ottoman", wish))
    for wish in room.wanted("lamp", 1, 0.6):
        in_corner(room, room.make("lamp", wish, floor_lamp))
    for wish in room.wanted("plant", 1, 0.6):
        in_corner(room, room.make("plant", wish))
    for wish in room.wanted("shelf", 1, 0.15):
        room.anywhere(room.make("shelf", wish, wall_shelf), y=1.5)
    ceiling_lamp(room, 0.4)


def bathroom(room: Room) -> None:
    room.palette = with_floor(room, ("tiles", "checks", "tiles", "marble"))
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
    windows(room, 1, 0.6, ("back", "right", "left"), width=0.9, height=0.9, sill=1.25)
    for wish in room.wanted("towel", 1, 0.75):
        room.anywhere(room.make("towel", wish), y=0.9)
    room.rug(room.near(-0.3, 0.3), -room.depth * 0.55, 1.0, 0.65, 0.0, 0.6)
    for name, odds in (("plant", 0.3), ("basket", 0.35), ("shelf", 0.2)):
        for wish in room.wanted(name, 1, odds):
            thing = room.make(name, wish, wall_shelf if name == "shelf" else None)
            _ = room.anywhere(thing, y=1.4) if name == "shelf" else in_corner(room, thing)
    ceiling_lamp(room, 0.5)


def _mirror_over_sink(room: Room, sink: Placed) -> None:
    for wish in room.wanted("mirror", 1, 0.9)[:1]:
        x, _, z = sink.world(0, 0, 0)
        room.put(room.make("mirror", wish), x, z, sink.turn, 1.15)


def dining_room(room: Room) -> None:
    room.shell()
    table = table_set(room, room.make("table"), (room.near(-0.3, 0.3), -room.depth * 0.55), room.pick(4, 4, 6))
    room.scene.main = table
    room.rug(table.position[0], table.position[2] - 0.6, 3.0, 2.4, 0.0, 0.5)
    extras = [n for n in ("vase", "flower", "food", "plate", "glass", "bottle") if room.named(n)]
    room.on(table, room.make(extras[0] if extras else room.pick("vase", "flower", "food")), 0)
    for k, name in enumerate(extras[1:] or (("plate",) if room.chance(0.6) else ())):
        for i, wish in enumerate(room.wanted(name, 2)):
            room.on(table, room.make(name, wish), 1 + (k + i) % 2, dz=0.2 * (i // 2) - 0.1)
    for wish in room.wanted("chandelier", 1, 0.55 if not room.named("light") else 0.0):
        room.hung(room.make("chandelier", wish), table.position[0], table.position[2] + 0.4)
    windows(room, 2, 0.85)
    for name, odds in (("cabinet", 0.6), ("fireplace", 0.2), ("door", 0.25), ("bookcase", 0.1)):
        for wish in room.wanted(name, 1, odds):
            case(room, name, wish)
    pictures(room, 1, 0.7)
    for wish in room.wanted("plant", 1, 0.45):
        in_corner(room, room.make("plant", wish))


def office(room: Room) -> None:
    room.shell(floor_texture=room.pick("planks", "carpet", "carpet", "noise"))
    wall = room.pick("back", "back", "left", "right")
    table = room.make("desk")
    desk = room.surely_against(table, wall, room.near(-0.5, 0.5) if wall == "back" else -0.5 * room.depth)
    room.scene.main = desk
    desk_set(room, desk, "chair" if room.named("chair") else "swivel chair", 0.95)
    for _, wish in zip(range(3), room.wanted("desk", 1, 0.0), strict=False):
        extra = room.anywhere(room.make("desk", wish))
        if extra is not None:
            desk_set(room, extra, "swivel chair", 0.8)
    windows(room, 1, 0.8)
    for name, odds in (("bookcase", 0.75), ("cabinet", 0.45), ("door", 0.25)):
        for wish in room.wanted(name, 1, odds):
            case(room, name, wish)
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
            in_corner(room, room.make(name, wish))
    ceiling_lamp(room, 0.6)


def library(room: Room) -> None:
    room.shell()
    for wall in ("back", "back", "back", "back", "left", "left", "left", "right", "right", "right"):
        if room.chance(0.85):
            room.against(room.make("bookcase", (room.spec.find("bookcase"), 0)), wall)
    if room.chance(0.7) or room.named("table"):
        table = table_set(room, room.make("table"), (room.near(-0.4, 0.4), -room.depth * 0.5), 2)
        room.scene.main = table
        room.on(table, room.make("book"), 0)
        if table_lamp(room, 0.8):
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
    windows(room, 1, 0.5, sill=1.0)
    ceiling_lamp(room, 0.6)


def classroom(room: Room) -> None:
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
    windows(room, 3, 0.95, (room.pick("left", "right"),), width=1.5)
    for name, odds in (("bookcase", 0.6), ("door", 0.5), ("cabinet", 0.3), ("box", 0.2)):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish))
    for name, odds, y in (("clock", 0.6, 2.2), ("poster", 0.7, 1.3), ("flag", 0.3, 1.9), ("screen", 0.1, 1.5)):
        for wish in room.wanted(name, 1, odds):
            room.anywhere(room.make(name, wish), y=y)
    for k in range(2):
        room.hung(room.make("light"), (k - 0.5) * 3, -room.depth * 0.5)


def laboratory(room: Room) -> None:
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
    windows(room, 1, 0.6)
    for k in range(2):
        room.hung(room.make("light"), (k - 0.5) * 2.4, -room.depth * 0.5)
