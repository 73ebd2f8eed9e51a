"""Makers of outdoor things: `maker(kit) -> Thing`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dmp_core.render.kit import Kit, Maker, Thing, turned
from dmp_core.render.materials import Material, shade
from dmp_core.render.mesh import box, cylinder, move, panel, prism, rotate, soft


def building(kit: Kit) -> Thing:
    w, h, d = kit.near(5.0, 9.0), kit.near(7.0, 16.0), kit.near(6.0, 9.0)
    wall = kit.main(kit.pick("wall", "accent", "fabric", (188.0, 150.0, 116.0), (160.0, 96.0, 78.0)), "facade", 9.0)
    wall = replace(
        wall,
        texture="facade",
        period=kit.pick(7.5, 9.0),
        second=kit.pick((70.0, 92.0, 122.0), (52.0, 60.0, 76.0), (236.0, 206.0, 120.0)),
    )
    thing = Thing("building", (w, h, d), primary=wall).add(box(w, h, d), wall, 0, 0, d / 2)
    if kit.chance(0.35):
        thing.add(
            prism(w + 0.4, w * 0.35, d + 0.4), Material(kit.pick((150.0, 74.0, 54.0), (84.0, 84.0, 92.0))), 0, h, d / 2
        )
    else:
        thing.add(box(w + 0.4, 0.4, d + 0.4), kit.trim(wall, 0.7), 0, h, d / 2)
    return thing.add(box(1.4, 2.4, 0.1), kit.of(kit.pick("wood", "accent2", "dark")), kit.near(-1, 1), 0, d)


def skyscraper(kit: Kit) -> Thing:
    w, h = kit.near(7.0, 11.0), kit.near(26.0, 48.0)
    wall = kit.main(kit.pick((120.0, 140.0, 160.0), (150.0, 156.0, 164.0), (90.0, 100.0, 116.0)), "facade", 7.0)
    wall = replace(
        wall,
        texture="facade",
        period=6.0,
        second=kit.pick((70.0, 110.0, 150.0), (46.0, 60.0, 84.0), (240.0, 214.0, 140.0)),
    )
    thing = Thing("skyscraper", (w, h, w), primary=wall).add(box(w, h, w), wall, 0, 0, w / 2)
    return thing.add(box(w * 0.6, h * 0.12, w * 0.6), wall, 0, h, w / 2)


def house(kit: Kit) -> Thing:
    w, h, d = kit.near(5.0, 7.5), kit.near(2.8, 4.2), kit.near(4.5, 6.0)
    wall = kit.main(
        kit.pick((234.0, 222.0, 196.0), "wall", "accent", (206.0, 150.0, 110.0)),
        kit.pick("plain", "plain", "brick", "planks"),
    )
    roof = Material(
        kit.pick((160.0, 70.0, 52.0), (96.0, 70.0, 58.0), (80.0, 84.0, 96.0)),
        "brick",
        None,
        1.8,
        0.0,
        int(kit.rng.integers(1 << 30)),
    )
    thing = Thing("house", (w, h + 2.0, d), primary=wall)
    thing.add(box(w, h, d), wall, 0, 0, d / 2)
    gable = prism(d + 0.5, kit.near(1.8, 2.6), w + 0.6) if kit.chance(0.5) else None
    if gable is not None:
        thing.add(turned(gable, 90), roof, 0, h, d / 2)
    else:
        thing.add(prism(w + 0.5, 2.4, d + 0.6), roof, 0, h, d / 2)
    thing.add(box(0.95, 2.0, 0.08), kit.of(kit.pick("wood", "accent2", "dark")), kit.near(-0.3, 0.3), 0, d + 0.02)
    for x in (-w * 0.32, w * 0.32):
        thing.add(box(1.2, 1.2, 0.06), Material((240.0, 238.0, 230.0)), x, 1.0, d + 0.02)
        thing.add(
            box(1.0, 1.0, 0.08), Material(kit.pick((70.0, 100.0, 136.0), (250.0, 216.0, 130.0))), x, 1.1, d + 0.02
        )
    return thing.add(box(0.6, 1.6, 0.6), Material((150.0, 84.0, 66.0)), w * 0.25, h + 1.0, d * 0.4)


def tree(kit: Kit) -> Thing:
    h = kit.near(3.5, 6.5)
    green = kit.main(
        kit.pick((74.0, 132.0, 60.0), (52.0, 110.0, 56.0), (120.0, 148.0, 60.0), (196.0, 120.0, 44.0)), "leaves", 1.0
    )
    green = replace(green, texture="leaves", period=1.2, second=shade(green.colour, 0.6))
    bark = Material((98.0, 72.0, 50.0))
    thing = Thing("tree", (2.6, h, 2.6), primary=green).add(cylinder(0.2, h * 0.5, 0.14), bark, 0, 0, 1.3)
    if kit.chance(0.35):
        for i in range(3):
            thing.add(
                cylinder(1.3 - 0.3 * i, h * 0.32, 0.02 + 0.3 * (2 - i) * 0.5), green, 0, h * (0.24 + 0.22 * i), 1.3
            )
        return thing
    for _ in range(5):
        r = kit.near(0.7, 1.15)
        thing.add(
            soft(2 * r, 1.7 * r, 2 * r, 1.0, 1.0),
            green,
            kit.near(-0.7, 0.7),
            h * kit.near(0.42, 0.68),
            1.3 + kit.near(-0.6, 0.6),
        )
    return thing


def palm(kit: Kit) -> Thing:
    h = kit.near(4.0, 6.0)
    green = kit.main((76.0, 140.0, 62.0))
    thing = Thing("palm", (3.0, h, 3.0), primary=green).add(
        rotate(cylinder(0.16, h, 0.1), "z", kit.near(-8, 8)), Material((146.0, 112.0, 74.0)), 0, 0, 1.5
    )
    for i in range(9):
        leaf = rotate(move(soft(0.45, 0.06, 1.9, 0.8), z=0.9), "x", kit.near(10, 30))
        thing.add(turned(leaf, 40 * i), green, 0, h - 0.1, 1.5)
    return thing


def car(kit: Kit) -> Thing:
    paint = kit.main(kit.pick("accent", "accent2", (200.0, 40.0, 40.0), (236.0, 196.0, 50.0), (60.0, 90.0, 160.0)))
    thing = Thing("car", (4.0, 1.45, 1.75), primary=paint)
    thing.add(soft(4.0, 0.75, 1.75, 0.25), paint, 0, 0.3, 0.9).add(soft(2.2, 0.75, 1.5, 0.35), paint, -0.1, 0.75, 0.9)
    glass = Material((64.0, 82.0, 102.0))
    thing.add(soft(1.9, 0.48, 1.56, 0.3), glass, -0.1, 0.9, 0.9).add(soft(2.28, 0.45, 1.3, 0.3), glass, -0.1, 0.9, 0.9)
    for x in (-1.25, 1.25):
        for z in (0.1, 1.55):
            thing.add(
                rotate(cylinder(0.34, 0.2, segments=16), "x", 90), Material((36.0, 36.0, 40.0)), x, 0.34, z - 0.05
            )
            thing.add(
                rotate(cylinder(0.18, 0.24, segments=12), "x", 90), Material((176.0, 180.0, 186.0)), x, 0.34, z - 0.07
            )
    return thing


def streetlight(kit: Kit) -> Thing:
    iron = kit.main("dark")
    thing = Thing("streetlight", (0.9, 4.6, 0.4), primary=iron, lamp=True).add(
        cylinder(0.07, 4.5, 0.05), iron, 0, 0, 0.2
    )
    thing.add(cylinder(0.16, 0.3), iron, 0, 0, 0.2)
    return thing.add(box(0.8, 0.06, 0.06), iron, 0.35, 4.45, 0.2).add(
        soft(0.4, 0.2, 0.3, 0.8), Material((255.0, 236.0, 180.0), emission=4.0), 0.7, 4.25, 0.2
    )


def person(kit: Kit) -> Thing:
    coat = kit.main(kit.pick("accent", "accent2", "fabric"))
    skin, trousers = (
        Material(kit.pick((232.0, 186.0, 152.0), (160.0, 110.0, 78.0), (206.0, 154.0, 116.0))),
        kit.of("dark"),
    )
    thing = Thing("person", (0.6, 1.75, 0.4), primary=coat)
    thing.add(soft(0.46, 0.66, 0.28, 0.5), coat, 0, 0.78, 0.2).add(soft(0.22, 0.28, 0.24, 1.0, 1.0), skin, 0, 1.46, 0.2)
    thing.add(
        soft(0.24, 0.14, 0.26, 0.9, 0.9),
        Material(kit.pick((60.0, 40.0, 28.0), (30.0, 28.0, 28.0), (170.0, 120.0, 60.0))),
        0,
        1.62,
        0.19,
    )
    for sx in (-1, 1):
        thing.add(cylinder(0.09, 0.82), trousers, sx * 0.11, 0, 0.2)
        thing.add(rotate(soft(0.13, 0.62, 0.14, 0.7), "z", sx * 8), coat, sx * 0.29, 0.8, 0.2)
    return thing


def animal(kit: Kit) -> Thing:
    """A four-legged one: between dog, cat and horse; its size is the prompt's."""
    fur = kit.main(kit.pick((150.0, 98.0, 56.0), (214.0, 196.0, 170.0), (70.0, 62.0, 58.0), (206.0, 132.0, 66.0)))
    thing = Thing("animal", (1.1, 0.9, 0.4), primary=fur)
    thing.add(soft(0.8, 0.34, 0.32, 0.8), fur, 0, 0.36, 0.2).add(soft(0.3, 0.3, 0.26, 1.0, 1.0), fur, 0.46, 0.58, 0.2)
    thing.add(soft(0.16, 0.13, 0.14, 0.9), kit.trim(fur, 0.8), 0.62, 0.6, 0.2)
    thing.add(rotate(cylinder(0.03, 0.38, 0.015, 8), "z", 40), fur, -0.36, 0.55, 0.2)
    for x in (-0.28, 0.28):
        for z in (0.1, 0.3):
            thing.add(cylinder(0.05, 0.42, segments=8), fur, x, 0, z)
            thing.add(cylinder(0.05, 0.12, 0.0, 6), kit.trim(fur, 0.8), 0.42, 0.82, z)
    return thing


def rock(kit: Kit) -> Thing:
    s = kit.near(0.5, 1.4)
    stone = kit.main(kit.pick((134.0, 128.0, 120.0), (158.0, 144.0, 124.0)), "noise", 1.5)
    return Thing("rock", (s, s, s), primary=stone).add(
        turned(soft(s * 1.3, s * 0.9, s, 0.75, 0.6), kit.near(0, 90)), stone, 0, -0.1 * s, s / 2
    )


def fence(kit: Kit) -> Thing:
    wood = kit.main(kit.pick("white", "wood"))
    thing = Thing("fence", (4.0, 1.0, 0.1), primary=wood)
    for y in (0.25, 0.7):
        thing.add(box(4.0, 0.1, 0.04), wood, 0, y, 0.03)
    for i in range(14):
        thing.add(box(0.12, 1.0, 0.03), wood, -1.92 + 0.295 * i, 0, 0.07)
    return thing


def boat(kit: Kit) -> Thing:
    paint = kit.main(kit.pick("accent", "white", (180.0, 60.0, 46.0)))
    thing = Thing("boat", (4.0, 4.5, 1.6), primary=paint).add(soft(4.0, 1.0, 1.5, 0.7, 0.9), paint, 0, -0.3, 0.8)
    thing.add(cylinder(0.05, 4.0), Material((120.0, 84.0, 54.0)), 0.2, 0.4, 0.8)
    sail = panel(0.01, 0.01)
    triangle = np.array(
        [[0.1, 0.9, 0.8], [-1.6, 0.9, 0.8], [0.1, 4.2, 0.8], [0.32, 0.9, 0.8], [1.6, 0.9, 0.8], [0.32, 3.8, 0.8]]
    )
    sail = sail._replace(
        vertices=triangle,
        normals=np.tile([0.0, 0.0, 1.0], (6, 1)),
        uv=triangle[:, :2],
        faces=np.array([[0, 2, 1], [3, 4, 5]]),
    )
    thing.parts.append((sail, Material((244.0, 238.0, 222.0))))
    return thing


def tower(kit: Kit) -> Thing:
    paint = kit.main(kit.pick((238.0, 234.0, 226.0), (176.0, 160.0, 140.0)))
    h = kit.near(9.0, 14.0)
    thing = Thing("tower", (3.0, h + 2.5, 3.0), primary=paint).add(cylinder(1.5, h, 1.0, 20), paint, 0, 0, 1.5)
    for k in (0.2, 0.5, 0.8):
        r = 1.5 - 0.5 * k
        thing.add(cylinder(r * 1.01, h * 0.13, r * 0.98, 20), Material((196.0, 52.0, 44.0)), 0, h * k, 1.5)
    thing.add(cylinder(1.25, 0.2, segments=20), kit.of("dark"), 0, h, 1.5).add(
        cylinder(0.7, 1.3), Material((255.0, 238.0, 180.0)), 0, h + 0.2, 1.5
    )
    return thing.add(cylinder(0.95, 1.0, 0.0, 20), Material((150.0, 46.0, 40.0)), 0, h + 1.5, 1.5)


def castle(kit: Kit) -> Thing:
    stone = replace(kit.main((176.0, 168.0, 154.0), "stone", 3.0), texture="stone", period=3.0)
    thing = Thing("building", (14.0, 10.0, 6.0), primary=stone).add(box(12.0, 5.0, 4.0), stone, 0, 0, 3.0)
    roof = Material(kit.pick((92.0, 70.0, 120.0), (150.0, 62.0, 50.0), (60.0, 84.0, 120.0)))
    for i in range(9):
        thing.add(box(0.7, 0.7, 4.0), stone, -5.6 + 1.4 * i, 5.0, 3.0)
    for x, z, r, h in ((-6.3, 4.2, 1.3, 8.5), (6.3, 4.2, 1.3, 8.0), (-2.4, 2.0, 1.1, 10.5), (2.8, 1.8, 1.5, 12.0)):
        thing.add(cylinder(r, h, segments=16), stone, x, 0, z).add(cylinder(r * 1.25, h * 0.38, 0.0, 16), roof, x, h, z)
    return thing.add(box(2.0, 2.8, 0.2), Material((70.0, 46.0, 30.0)), 0, 0, 5.0)


def tent(kit: Kit) -> Thing:
    cloth = kit.main(kit.pick("accent", (222.0, 150.0, 60.0)))
    return (
        Thing("tent", (2.4, 1.6, 2.6), primary=cloth)
        .add(prism(2.4, 1.6, 2.6), cloth, 0, 0, 1.3)
        .add(box(0.5, 1.0, 0.04), kit.of("dark"), 0, 0, 2.6)
    )


OUTDOOR: dict[str, Maker] = {
    "building": building, "skyscraper": skyscraper, "house": house, "tree": tree, "palm": palm, "car": car,
    "streetlight": streetlight, "person": person, "animal": animal, "rock": rock, "fence": fence, "boat": boat,
    "tower": tower, "tent": tent,
}  # fmt: skip
