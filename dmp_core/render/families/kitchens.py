"""Kitchens."""

from __future__ import annotations

import numpy as np

from dmp_core.render.families.placing import (
    ceiling_lamp,
    in_corner,
    table_set,
    windows,
    with_floor,
)
from dmp_core.render.furniture.appliances import kitchen_sink
from dmp_core.render.furniture.tables import base_cabinet, countertop, wall_cabinet
from dmp_core.render.kit import Kit, Thing
from dmp_core.render.mesh import scale
from dmp_core.render.room import Room
from dmp_core.render.scene import Placed


def kitchen(room: Room) -> None:
    room.palette = with_floor(room, ("tiles", "checks", "planks", "planks"))
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
            table_set(room, room.make("table", wish), (room.near(0.2, 0.8), -room.near(1.3, 1.7)), 2)
    if "left" not in runs or room.named("window"):
        windows(room, 1, 0.7, ("left", "right"))
    for wish in room.wanted("plant", 1, 0.2):
        in_corner(room, room.make("plant", wish))
    ceiling_lamp(room, 0.6)
    if room.scene.main is None:
        room.scene.main = next((o for o in room.scene.objects if o.name in ("stove", "cabinet")), None)


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
        placed = room.against(thing, wall, t, gap=0.0, force=True)  # units of a run touch
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
