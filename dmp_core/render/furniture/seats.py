"""Things to sit on."""

from __future__ import annotations

from dmp_core.render.furniture.parts import legs
from dmp_core.render.kit import Kit, Thing, turned
from dmp_core.render.mesh import box, cylinder, move, rotate, soft


def sofa(kit: Kit) -> Thing:
    w, d = kit.near(1.7, 2.4) * (min(kit.ask.size, 1.2) if kit.ask else 1), kit.near(0.85, 1.0)
    cloth = kit.main("fabric", kit.pick("plain", "plain", "plain", "weave", "stripes"))
    thing = Thing("sofa", (w, 0.85, d), primary=cloth)
    dark, arm = kit.trim(cloth, 0.88), kit.near(0.14, 0.24)
    thing.add(box(w, 0.3, d - 0.06), dark, 0, 0.1, d / 2)
    thing.add(soft(w, 0.75, 0.26, 0.25), cloth, 0, 0.12, 0.14)
    for sx in (-1, 1):
        thing.add(soft(arm, 0.56, d, 0.3), cloth, sx * (w - arm) / 2, 0.06, d / 2)
    n = 3 if w > 2.05 else 2
    seat = (w - 2 * arm) / n
    for i in range(n):
        x = (i + 0.5 - n / 2) * seat
        thing.add(soft(seat * 0.99, 0.2, d - 0.2, 0.25), kit.trim(cloth, 1.06), x, 0.34, d / 2 + 0.12)
        thing.add(rotate(soft(seat * 0.96, 0.42, 0.16, 0.3), "x", -10), kit.trim(cloth, 1.03), x, 0.48, 0.3)
    legs(thing, w, d, 0.12, kit.of("wood"), 0.03)
    thing.spots = [((i + 0.5 - n / 2) * seat, 0.53, 0.34, seat, 0.4) for i in range(n)]
    return thing


def armchair(kit: Kit) -> Thing:
    w, d = kit.near(0.75, 0.92), kit.near(0.75, 0.88)
    cloth = kit.main(kit.pick("fabric", "accent", "accent2"), kit.pick("plain", "plain", "weave", "floral"))
    thing = Thing("armchair", (w, 0.95, d), primary=cloth)
    thing.add(soft(w * 0.9, kit.near(0.75, 0.95), 0.22, 0.3), cloth, 0, 0.12, 0.13)
    thing.add(box(w * 0.9, 0.22, d - 0.1), kit.trim(cloth, 0.85), 0, 0.12, d / 2)
    thing.add(soft(w * 0.66, 0.2, d - 0.2, 0.3), kit.trim(cloth, 1.06), 0, 0.3, d / 2 + 0.1)
    for sx in (-1, 1):
        thing.add(soft(0.16, 0.52, d, 0.35), cloth, sx * (w - 0.16) / 2, 0.1, d / 2)
    legs(thing, w * 0.9, d, 0.14, kit.of("wood"), 0.025)
    thing.spots = [(0, 0.5, 0.28, w * 0.5, 0.3)]
    return thing


def chair(kit: Kit) -> Thing:
    w, d, h = kit.near(0.42, 0.48), 0.46, kit.near(0.85, 1.0)
    wood = kit.main(kit.pick("wood", "wood", "dark", "white", "accent"), kit.pick("wood", "plain"))
    seat = wood if kit.has_wish() else kit.pick(wood, kit.of("accent"), kit.of("fabric"))
    thing = Thing("chair", (w, h, d), primary=wood)
    legs(thing, w, d, 0.45, wood, 0.022)
    thing.add(soft(w, 0.07, d, 0.25), seat, 0, 0.42, d / 2)
    for sx in (-1, 1):
        thing.add(box(0.04, h - 0.45, 0.04), wood, sx * (w / 2 - 0.02), 0.45, 0.02)
    if kit.chance(0.5):
        thing.add(box(w, 0.3, 0.03), seat, 0, h - 0.32, 0.03)
    else:
        for y in (h - 0.08, h - 0.22, h - 0.36):
            thing.add(box(w, 0.06, 0.03), wood, 0, y, 0.02)
    return thing


def stool(kit: Kit) -> Thing:
    h, r = kit.pick(0.46, 0.68, 0.75), kit.near(0.16, 0.2)
    seat = kit.main(kit.pick("wood", "accent", "dark"))
    thing = Thing("stool", (2 * r, h, 2 * r), primary=seat)
    thing.add(cylinder(r, 0.06), seat, 0, h - 0.06, r)
    if kit.chance(0.5):
        thing.add(cylinder(0.03, h - 0.06), kit.of("metal"), 0, 0, r).add(
            cylinder(r * 0.8, 0.03), kit.of("metal"), 0, 0, r
        )
    else:
        legs(thing, 2 * r * 0.85, 2 * r * 0.85, h - 0.05, seat, 0.018, r)
    return thing


def swivel_chair(kit: Kit) -> Thing:
    cloth = kit.main(kit.pick("dark", "accent", "fabric"))
    thing = Thing("swivel chair", (0.6, 1.05, 0.6), primary=cloth)
    thing.add(soft(0.5, 0.1, 0.48, 0.3), cloth, 0, 0.44, 0.32).add(soft(0.46, 0.55, 0.1, 0.3), cloth, 0, 0.52, 0.08)
    metal = kit.of("metal")
    thing.add(cylinder(0.03, 0.4), metal, 0, 0.06, 0.3)
    for i in range(5):
        thing.add(turned(move(box(0.05, 0.05, 0.28), z=0.14), 72 * i), kit.of("dark"), 0, 0.03, 0.3)
    for sx in (-1, 1):
        thing.add(box(0.05, 0.04, 0.3), kit.of("dark"), sx * 0.27, 0.66, 0.3)
        thing.add(box(0.04, 0.2, 0.04), kit.of("dark"), sx * 0.27, 0.48, 0.3)
    return thing


def bench(kit: Kit) -> Thing:
    w, d = kit.near(1.1, 1.6), 0.4
    wood = kit.main("wood", "wood")
    thing = Thing("bench", (w, 0.46, d), primary=wood)
    thing.add(box(w, 0.06, d), wood, 0, 0.4, d / 2)
    if kit.chance(0.5):
        thing.add(soft(w, 0.1, d, 0.25), wood if kit.has_wish() else kit.of("accent"), 0, 0.44, d / 2)
    legs(thing, w, d, 0.4, kit.trim(wood), 0.04)
    return thing


def pew(kit: Kit) -> Thing:
    w = 2.4
    wood = kit.main("wood", "wood")
    thing = Thing("bench", (w, 0.95, 0.55), primary=wood)
    thing.add(box(w, 0.05, 0.42), wood, 0, 0.42, 0.27).add(box(w, 0.95, 0.05), kit.trim(wood, 0.9), 0, 0, 0.03)
    for sx in (-1, 1):
        thing.add(box(0.06, 0.85, 0.52), kit.trim(wood, 0.8), sx * w / 2, 0, 0.27)
    return thing


def seat(kit: Kit) -> Thing:
    """One of a row of waiting-room or vehicle seats."""
    cloth = kit.main(kit.pick("fabric", "accent", "fabric"))
    thing = Thing("seat", (0.55, 1.15, 0.62), primary=cloth)
    thing.add(soft(0.5, 0.16, 0.5, 0.3), cloth, 0, 0.36, 0.34)
    thing.add(rotate(soft(0.5, 0.74, 0.14, 0.3), "x", -6), cloth, 0, 0.42, 0.12)
    thing.add(soft(0.32, 0.2, 0.12, 0.4), kit.of("white"), 0, 0.98, 0.04)
    thing.add(box(0.44, 0.36, 0.3), kit.of("dark"), 0, 0, 0.3)
    for sx in (-1, 1):
        thing.add(box(0.05, 0.08, 0.42), kit.of("dark"), sx * 0.27, 0.58, 0.32)
    return thing


def ottoman(kit: Kit) -> Thing:
    r = kit.near(0.24, 0.32)
    cloth = kit.main(kit.pick("accent", "accent2", "fabric"), kit.pick("plain", "weave"))
    return Thing("ottoman", (2 * r, 0.42, 2 * r), primary=cloth).add(soft(2 * r, 0.42, 2 * r, 0.4, 0.9), cloth, 0, 0, r)
