"""Tables, counters, cabinets and shelves."""

from __future__ import annotations

from dmp_core.render.furniture.parts import drawers, legs
from dmp_core.render.kit import Kit, Thing
from dmp_core.render.materials import Material
from dmp_core.render.mesh import box, cylinder, move, panel, sphere


def table(kit: Kit) -> Thing:
    w, d, h = kit.near(1.3, 2.0) * (kit.ask.size if kit.ask else 1), kit.near(0.8, 1.0), 0.75
    wood = kit.main(kit.pick("wood", "wood", "white", "dark"), kit.pick("wood", "wood", "plain"))
    thing = Thing("table", (w, h, d), primary=wood)
    if kit.chance(0.25):
        thing.add(cylinder(w / 2 * 0.85, 0.05, segments=24), wood, 0, h - 0.05, d / 2)
        thing.add(cylinder(0.07, h - 0.05), kit.trim(wood), 0, 0, d / 2).add(
            cylinder(0.3, 0.05, 0.1), kit.trim(wood), 0, 0, d / 2
        )
    else:
        thing.add(box(w, 0.06, d), wood, 0, h - 0.06, d / 2)
        thing.add(box(w - 0.15, 0.08, d - 0.15), kit.trim(wood), 0, h - 0.14, d / 2)
        legs(thing, w - 0.08, d - 0.08, h - 0.06, kit.trim(wood, 0.85), 0.04, d / 2)
    thing.spots = [(x * w, h, d * 0.25, w * 0.22, d * 0.5) for x in (0.0, -0.3, 0.3)]
    return thing


def coffee_table(kit: Kit) -> Thing:
    w, d, h = kit.near(0.8, 1.2), kit.near(0.5, 0.65), kit.near(0.36, 0.45)
    wood = kit.main(kit.pick("wood", "wood", "dark", "white"), kit.pick("wood", "plain"))
    thing = Thing("coffee table", (w, h, d), primary=wood)
    if kit.chance(0.3):
        thing.add(cylinder(w * 0.45, 0.05, segments=24), wood, 0, h - 0.05, d / 2).add(
            cylinder(0.2, h - 0.05, 0.06), kit.trim(wood), 0, 0, d / 2
        )
    else:
        thing.add(box(w, 0.05, d), wood, 0, h - 0.05, d / 2)
        legs(thing, w, d, h - 0.05, kit.trim(wood), 0.03)
        if kit.chance(0.5):
            thing.add(box(w * 0.92, 0.03, d * 0.92), wood, 0, 0.12, d / 2)
    thing.spots = [(0, h, d * 0.3, w * 0.3, d * 0.4), (w * 0.26, h, d * 0.3, w * 0.25, d * 0.4)]
    return thing


def desk(kit: Kit) -> Thing:
    w, d, h = kit.near(1.15, 1.6), kit.near(0.6, 0.72), 0.75
    wood = kit.main(kit.pick("wood", "wood", "white", "dark"), kit.pick("wood", "wood", "plain"))
    thing = Thing("desk", (w, h, d), primary=wood)
    thing.add(box(w, 0.05, d), wood, 0, h - 0.05, d / 2)
    if kit.chance(0.6):
        thing.add(box(0.42, h - 0.05, d - 0.04), kit.trim(wood, 0.9), w / 2 - 0.22, 0, d / 2)
        for i in range(3):
            thing.add(box(0.36, 0.2, 0.02), kit.trim(wood, 1.1), w / 2 - 0.22, 0.05 + 0.22 * i, d - 0.01)
        for sz in (0.04, d - 0.04):
            thing.add(box(0.06, h - 0.05, 0.06), kit.trim(wood), -w / 2 + 0.04, 0, sz)
    else:
        legs(thing, w, d, h - 0.05, kit.of("metal"))
    thing.spots = [
        (0, h, 0.1, w * 0.35, d * 0.6),
        (-w * 0.36, h, 0.1, w * 0.2, d * 0.6),
        (w * 0.36, h, 0.1, w * 0.2, d * 0.6),
    ]
    return thing


def counter(kit: Kit) -> Thing:
    w, d, h = kit.near(1.6, 2.4), 0.6, kit.near(0.92, 1.05)
    body = kit.main(kit.pick("wood", "white", "accent", "fabric"), kit.pick("plain", "wood", "tiles"))
    thing = Thing("counter", (w, h, d), primary=body)
    thing.add(box(w, h - 0.05, d - 0.06), body, 0, 0, d / 2)
    top = kit.trim(body, 0.7) if kit.has_wish() else kit.of(kit.pick("dark", "wood", "white"))
    thing.add(box(w + 0.06, 0.05, d + 0.04), top, 0, h - 0.05, d / 2)
    thing.spots = [(x * w, h, 0.12, w * 0.25, 0.4) for x in (-0.3, 0.0, 0.3)]
    return thing


def base_cabinet(kit: Kit, w: float = 0.6, top: Material | None = None) -> Thing:
    """One module of a kitchen run: doors below, worktop above."""
    h, d = 0.9, 0.6
    body = kit.main(kit.pick("wood", "white", "accent", "fabric"), "plain")
    thing = Thing("cabinet", (w, h, d), primary=body)
    thing.add(box(w, h - 0.12, d - 0.04), body, 0, 0.08, d / 2 - 0.02).add(
        box(w, 0.08, d - 0.1), kit.of("dark"), 0, 0, d / 2 - 0.05
    )
    n = max(1, round(w / 0.5))
    for i in range(n):
        x = (i + 0.5 - n / 2) * w / n
        thing.add(box(w / n * 0.92, h - 0.2, 0.02), kit.trim(body, 1.08), x, 0.12, d - 0.03)
        thing.add(box(0.1, 0.02, 0.03), kit.of("metal"), x, h - 0.16, d)
    return thing


def countertop(kit: Kit) -> Thing:
    """A worktop slab of unit width; the kitchen scales it."""
    stone = kit.main(kit.pick("dark", "white", "wood"), kit.pick("plain", "marble", "noise"))
    return Thing("countertop", (1.0, 0.04, 0.62), primary=stone).add(box(1.0, 0.04, 0.62), stone, 0, 0, 0.31)


def kitchen_island(kit: Kit) -> Thing:
    w, d, h = kit.near(1.3, 1.9), 0.75, 0.92
    body = kit.main(kit.pick("wood", "white", "accent", "fabric"), kit.pick("plain", "wood"))
    thing = Thing("kitchen island", (w, h, d), primary=body)
    thing.add(box(w - 0.1, h - 0.05, d - 0.1), body, 0, 0, d / 2).add(
        box(w + 0.08, 0.05, d + 0.06), kit.trim(body, 0.6), 0, h - 0.05, d / 2
    )
    thing.spots = [(x * w, h, 0.2, w * 0.25, 0.4) for x in (-0.28, 0.28, 0.0)]
    return thing


def cabinet(kit: Kit) -> Thing:
    w, h, d = kit.near(0.9, 1.4), kit.pick(0.8, 1.1, 1.6), 0.42
    wood = kit.main(kit.pick("wood", "wood", "white", "accent2"), kit.pick("wood", "plain"))
    thing = Thing("cabinet", (w, h, d), primary=wood)
    thing.add(box(w, h, d), wood, 0, 0, d / 2).add(box(w + 0.04, 0.04, d + 0.04), kit.trim(wood), 0, h - 0.02, d / 2)
    drawers(thing, w, h - 0.06, d, 1 if h < 1 else 2, 2, kit.trim(wood, 1.12), kit.of("metal"), 0.02)
    thing.spots = [(0, h + 0.02, 0.06, w * 0.5, d * 0.8), (w * 0.32, h + 0.02, 0.06, w * 0.3, d * 0.8)]
    return thing


def wall_cabinet(kit: Kit) -> Thing:
    w, h, d = 1.2, 0.65, 0.34
    body = kit.main(kit.pick("wood", "white"))
    thing = Thing("cabinet", (w, h, d), primary=body).add(box(w, h, d), body, 0, 0, d / 2)
    for i in range(3):
        thing.add(box(w / 3 * 0.92, h * 0.92, 0.02), kit.trim(body, 1.1), (i - 1) * w / 3, h * 0.04, d + 0.01)
    return thing


def _filled_shelves(
    thing: Thing, kit: Kit, w: float, h: float, d: float, levels: int, wood: Material, filling: str
) -> None:
    gap = h / levels
    for i in range(levels + 1):
        thing.add(box(w, 0.035, d), wood, 0, min(i * gap, h - 0.035), d / 2)
    for i in range(levels):
        row = kit.of(kit.pick("accent", "fabric", "wood"), filling, 1.0)
        thing.parts.append((move(panel(w * 0.94, gap * 0.82), 0, i * gap + 0.035, d * 0.7), row))


def bookcase(kit: Kit) -> Thing:
    w, h, d = kit.near(0.8, 1.3), kit.near(1.7, 2.2), 0.34
    wood = kit.main(kit.pick("wood", "wood", "white", "dark"), kit.pick("wood", "plain"))
    thing = Thing("bookcase", (w, h, d), primary=wood)
    thing.add(box(w, h, 0.03), kit.trim(wood, 0.7), 0, 0, 0.02)
    for sx in (-1, 1):
        thing.add(box(0.04, h, d), wood, sx * (w / 2 - 0.02), 0, d / 2)
    _filled_shelves(thing, kit, w, h, d, 5, wood, "books")
    return thing


def shelf(kit: Kit) -> Thing:
    """Shop or store shelving, full of goods."""
    w, h, d = kit.near(1.2, 1.8), kit.near(1.6, 2.0), 0.4
    frame = kit.main(kit.pick("wood", "white", "metal"))
    thing = Thing("shelf", (w, h, d), primary=frame)
    thing.add(box(w, h, 0.03), kit.trim(frame, 0.8), 0, 0, 0.02)
    for sx in (-1, 1):
        thing.add(box(0.05, h, d), frame, sx * w / 2, 0, d / 2)
    _filled_shelves(thing, kit, w, h, d, 4, frame, "goods")
    return thing


def wall_shelf(kit: Kit) -> Thing:
    w = kit.near(0.8, 1.2)
    wood = kit.main("wood", "wood")
    thing = Thing("shelf", (w, 0.35, 0.24), primary=wood).add(box(w, 0.04, 0.24), wood, 0, 0, 0.12)
    for i in range(int(w / 0.11)):
        if kit.chance(0.75):
            colour = kit.pick("accent", "fabric", "accent2", "white", "dark")
            thing.add(box(0.07, kit.near(0.16, 0.28), 0.16), kit.of(colour), -w / 2 + 0.08 + i * 0.11, 0.04, 0.11)
    return thing


def bar(kit: Kit) -> Thing:
    w = kit.near(2.4, 3.2)
    wood = kit.main("wood", "wood")
    thing = Thing("bar", (w, 1.1, 0.65), primary=wood)
    thing.add(box(w, 1.05, 0.5), wood, 0, 0, 0.3).add(box(w + 0.1, 0.06, 0.68), kit.trim(wood, 0.6), 0, 1.05, 0.34)
    for i in range(5):
        thing.add(box(w / 5 * 0.8, 0.7, 0.02), kit.trim(wood, 0.85), (i - 2) * w / 5, 0.18, 0.56)
    thing.spots = [(x * w, 1.11, 0.2, 0.2, 0.3) for x in (-0.35, -0.12, 0.12, 0.35)]
    return thing


def pool_table(kit: Kit) -> Thing:
    cloth = kit.main((34.0, 122.0, 76.0))
    thing = Thing("pool table", (2.2, 0.85, 1.2), primary=cloth)
    wood = kit.of("wood", "wood")
    thing.add(box(2.2, 0.2, 1.2), wood, 0, 0.62, 0.6).add(box(2.0, 0.02, 1.0), cloth, 0, 0.82, 0.6)
    legs(thing, 2.0, 1.0, 0.62, wood, 0.07, 0.6)
    for x, z, c in (
        (0.3, 0.5, (220.0, 40.0, 40.0)),
        (0.42, 0.62, (240.0, 200.0, 50.0)),
        (-0.5, 0.6, (240.0, 240.0, 236.0)),
    ):
        thing.add(sphere(0.04), Material(c), x, 0.84, z)
    return thing


def conveyer_belt(kit: Kit) -> Thing:
    metal = kit.main("metal")
    thing = Thing("conveyer belt", (2.6, 0.85, 0.7), primary=metal)
    thing.add(box(2.6, 0.12, 0.7), metal, 0, 0.7, 0.35).add(box(2.6, 0.02, 0.56), kit.of("dark"), 0, 0.82, 0.35)
    legs(thing, 2.5, 0.66, 0.7, kit.trim(metal), 0.05, 0.35)
    thing.spots = [(x, 0.84, 0.15, 0.5, 0.4) for x in (-0.8, 0.0, 0.8)]
    return thing
