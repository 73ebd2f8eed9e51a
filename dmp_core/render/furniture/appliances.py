"""What stands in kitchens and bathrooms."""

from __future__ import annotations

from dmp_core.render.kit import Kit, Thing, turned
from dmp_core.render.materials import Material, shade
from dmp_core.render.mesh import box, cylinder, lathe, rotate, soft


def stove(kit: Kit) -> Thing:
    body = kit.main(kit.pick("white", "metal", "dark"))
    thing = Thing("stove", (0.62, 0.93, 0.62), primary=body)
    thing.add(box(0.6, 0.9, 0.6), body, 0, 0, 0.3).add(box(0.48, 0.36, 0.02), kit.of("dark"), 0, 0.22, 0.61)
    thing.add(box(0.5, 0.03, 0.04), kit.of("metal"), 0, 0.66, 0.63).add(
        box(0.6, 0.02, 0.6), kit.of("dark"), 0, 0.9, 0.3
    )
    for sx in (-1, 1):
        for z in (0.17, 0.43):
            thing.add(cylinder(0.09, 0.02), kit.of((70.0, 70.0, 74.0)), sx * 0.15, 0.915, z)
        thing.add(cylinder(0.025, 0.03), kit.of("metal"), sx * 0.2, 0.78, 0.62)
    thing.spots = [(-0.15, 0.935, 0.05, 0.25, 0.25), (0.15, 0.935, 0.3, 0.25, 0.25)]
    return thing


def refrigerator(kit: Kit) -> Thing:
    h = kit.near(1.65, 1.9)
    body = kit.main(kit.pick("white", "metal", "metal", "accent"))
    thing = Thing("refrigerator", (0.7, h, 0.68), primary=body)
    thing.add(box(0.68, h, 0.6), kit.trim(body, 0.9), 0, 0, 0.3)
    thing.add(box(0.67, h * 0.6, 0.06), body, 0, 0.03, 0.63).add(box(0.67, h * 0.34, 0.06), body, 0, h * 0.65, 0.63)
    for y, length in ((h * 0.35, 0.4), (h * 0.68, 0.3)):
        thing.add(box(0.03, length, 0.04), kit.of((60.0, 60.0, 64.0)), -0.27, y, 0.68)
    return thing


def hood(kit: Kit) -> Thing:
    metal = kit.main("metal")
    thing = Thing("hood", (0.7, 0.9, 0.5), primary=metal)
    cone = turned(cylinder(0.42, 0.26, 0.17, segments=4), 45)
    return (
        thing.add(cone, metal, 0, 0.06, 0.28)
        .add(box(0.22, 0.7, 0.22), metal, 0, 0.3, 0.14)
        .add(box(0.6, 0.07, 0.5), metal, 0, 0, 0.27)
    )


def microwave(kit: Kit) -> Thing:
    body = kit.main(kit.pick("white", "metal", "dark"))
    thing = Thing("microwave", (0.48, 0.28, 0.36), primary=body).add(box(0.48, 0.28, 0.36), body, 0, 0, 0.18)
    return thing.add(box(0.3, 0.2, 0.01), kit.of((40.0, 42.0, 48.0)), -0.06, 0.04, 0.365)


def sink(kit: Kit) -> Thing:
    """A basin on a pedestal or a vanity."""
    white = kit.main("white")
    thing = Thing("sink", (0.6, 0.88, 0.48), primary=white)
    bowl = lathe(((0.0, 0.0), (0.2, 0.0), (0.29, 0.16), (0.26, 0.16), (0.17, 0.04), (0.0, 0.04)), 18)
    thing.add(bowl, white, 0, 0.7, 0.26)
    if kit.chance(0.5):
        thing.add(cylinder(0.11, 0.72, 0.08), white, 0, 0, 0.22)
    else:
        thing.add(box(0.66, 0.66, 0.46), kit.of("wood", "wood"), 0, 0.06, 0.23)
        thing.add(box(0.6, 0.3, 0.02), Material(shade(kit.colour("wood"), 1.15)), 0, 0.3, 0.47)
    return thing.add(box(0.04, 0.24, 0.04), kit.of("metal"), 0, 0.8, 0.04).add(
        box(0.03, 0.03, 0.16), kit.of("metal"), 0, 1.01, 0.1
    )


def kitchen_sink(kit: Kit) -> Thing:
    metal = kit.main("metal")
    thing = Thing("sink", (0.56, 0.3, 0.44), primary=metal)
    thing.add(box(0.56, 0.015, 0.44), metal, 0, 0, 0.3).add(box(0.46, 0.02, 0.34), kit.trim(metal, 0.55), 0, 0.0, 0.31)
    thing.add(box(0.03, 0.28, 0.03), kit.trim(metal, 1.2), 0, 0, 0.1)
    return thing.add(box(0.03, 0.03, 0.18), kit.trim(metal, 1.2), 0, 0.26, 0.18)


def bathtub(kit: Kit) -> Thing:
    w, d, h = kit.near(1.55, 1.8), kit.near(0.72, 0.8), 0.56
    white = kit.main("white")
    thing = Thing("bathtub", (w, h, d), primary=white)
    if kit.chance(0.5):  # built in: four walls round a basin floor
        thing.add(box(w, h, 0.08), white, 0, 0, 0.04).add(box(w, h, 0.08), white, 0, 0, d - 0.04)
        for sx in (-1, 1):
            thing.add(box(0.1, h, d - 0.1), white, sx * (w / 2 - 0.05), 0, d / 2)
        thing.add(box(w - 0.1, 0.2, d - 0.1), kit.trim(white, 0.97), 0, 0, d / 2)
    else:  # free-standing shell
        shell = lathe(((0.0, 0.0), (0.36, 0.0), (0.5, 0.56), (0.46, 0.56), (0.34, 0.1), (0.0, 0.1)), 24)
        thing.add(shell._replace(vertices=shell.vertices * [w, 1.0, d]), white, 0, 0, d / 2)
    thing.add(box(0.04, 0.28, 0.04), kit.of("metal"), -w * 0.42, h, 0.06).add(
        box(0.04, 0.04, 0.16), kit.of("metal"), -w * 0.42, h + 0.24, 0.12
    )
    return thing


def toilet(kit: Kit) -> Thing:
    white = kit.main("white")
    thing = Thing("toilet", (0.42, 0.82, 0.68), primary=white)
    bowl = lathe(
        ((0.0, 0.0), (0.13, 0.0), (0.12, 0.16), (0.2, 0.38), (0.2, 0.42), (0.14, 0.42), (0.08, 0.34), (0.0, 0.34)), 16
    )
    thing.add(bowl._replace(vertices=bowl.vertices * [0.95, 1.0, 1.25]), white, 0, 0, 0.42)
    thing.add(soft(0.42, 0.4, 0.2, 0.25), white, 0, 0.4, 0.1).add(box(0.2, 0.4, 0.24), white, 0, 0, 0.14)
    lid = rotate(cylinder(0.19, 0.03, segments=16), "x", 78)
    return thing.add(lid, kit.trim(white, 0.95), 0, 0.62, 0.22)


def towel(kit: Kit) -> Thing:
    cloth = kit.main(kit.pick("accent", "fabric", "accent2"), kit.pick("plain", "stripes"), 0.5)
    thing = Thing("towel", (0.5, 0.7, 0.12), primary=cloth)
    return thing.add(box(0.5, 0.7, 0.06), cloth, 0, 0, 0.07).add(box(0.62, 0.03, 0.03), kit.of("metal"), 0, 0.7, 0.07)


def shower(kit: Kit) -> Thing:
    metal = kit.main("metal")
    thing = Thing("shower", (0.9, 2.1, 0.9), primary=metal)
    if kit.has_wish():
        thing.add(box(0.9, 2.0, 0.03), metal, 0, 0.1, 0.02)
    thing.add(box(0.9, 0.1, 0.9), metal if kit.has_wish() else kit.of("white"), 0, 0, 0.45).add(
        box(0.03, 1.1, 0.03), metal, 0, 1.0, 0.03
    )
    thing.add(box(0.03, 0.03, 0.3), metal, 0, 2.07, 0.16).add(cylinder(0.05, 0.05, 0.02), metal, 0, 2.02, 0.3)
    for x, z in ((-0.44, 0.88), (0.44, 0.88)):
        thing.add(box(0.04, 2.0, 0.04), metal, x, 0.1, z)
    return thing.add(box(0.9, 0.04, 0.04), metal, 0, 2.06, 0.88)


def washer(kit: Kit) -> Thing:
    white = kit.main("white")
    thing = Thing("washer", (0.6, 0.86, 0.58), primary=white).add(box(0.6, 0.86, 0.56), white, 0, 0, 0.28)
    ring = rotate(cylinder(0.19, 0.03, segments=20), "x", 90)
    thing.add(ring, kit.of("metal"), 0, 0.42, 0.56)
    return thing.add(rotate(cylinder(0.14, 0.02, segments=20), "x", 90), kit.of((46.0, 56.0, 74.0)), 0, 0.42, 0.59)
