"""Small things, most of them for the top of something."""

from __future__ import annotations

from dmp_core.render.kit import Kit, Thing, turned
from dmp_core.render.materials import Material, mix
from dmp_core.render.mesh import box, cylinder, lathe, move, panel, rotate, soft, sphere


def lamp(kit: Kit) -> Thing:
    """A table lamp; the shade glows."""
    tint = kit.main(kit.pick("white", "white", "accent"))
    glow = Material(mix(tint.colour, (255.0, 232.0, 180.0), 0.25 if kit.has_wish() else 0.6), emission=2.2)
    thing = Thing("lamp", (0.34, 0.55, 0.34), primary=glow, lamp=True)
    foot = kit.of(kit.pick("metal", "wood", "accent2", "dark"))
    body = kit.pick(
        cylinder(0.02, 0.32),
        lathe(((0.0, 0.0), (0.06, 0.02), (0.09, 0.1), (0.05, 0.2), (0.02, 0.3), (0.0, 0.3))),
        cylinder(0.09, 0.3, 0.03),
    )
    thing.add(cylinder(0.09, 0.03), foot, 0, 0, 0.17).add(body, foot, 0, 0.02, 0.17)
    thing.add(cylinder(kit.near(0.14, 0.18), 0.22, kit.near(0.09, 0.13)), glow, 0, 0.3, 0.17)
    return thing


def floor_lamp(kit: Kit) -> Thing:
    tint = kit.main(kit.pick("white", "white", "accent"))
    glow = Material(mix(tint.colour, (255.0, 232.0, 180.0), 0.25 if kit.has_wish() else 0.6), emission=2.2)
    thing = Thing("lamp", (0.44, 1.65, 0.44), primary=glow, lamp=True)
    foot = kit.of(kit.pick("metal", "dark", "wood"))
    thing.add(cylinder(0.15, 0.03), foot, 0, 0, 0.22).add(cylinder(0.022, 1.4), foot, 0, 0, 0.22)
    return thing.add(cylinder(0.22, 0.28, 0.15), glow, 0, 1.36, 0.22)


def plant(kit: Kit) -> Thing:
    h = kit.near(0.7, 1.4)
    leaf = kit.main("leaf", "leaves") if kit.has_wish() else kit.of("leaf", "leaves")
    thing = Thing("plant", (0.6, h, 0.6), primary=leaf)
    pot_colour = kit.of(kit.pick("accent", "white", (176.0, 96.0, 64.0)))
    thing.add(cylinder(0.13, 0.28, 0.17), pot_colour, 0, 0, 0.3)
    kind = kit.pick("blades", "ball", "crown")
    if kind == "ball":
        thing.add(cylinder(0.025, h * 0.5), kit.of("wood"), 0, 0.25, 0.3).add(sphere(0.27), leaf, 0, h - 0.55, 0.3)
    elif kind == "crown":
        thing.add(cylinder(0.03, h * 0.4), kit.of("wood"), 0, 0.25, 0.3)
        for i in range(5):
            thing.add(
                soft(0.34, 0.24, 0.34, 0.9, 0.9),
                leaf,
                0.14 * (i % 3 - 1),
                h * (0.45 + 0.1 * i),
                0.3 + 0.1 * ((i * 2) % 3 - 1),
            )
    else:
        for i in range(9):
            blade = rotate(soft(0.11, h - 0.25, 0.03, 0.9), "x", kit.near(8, 40))
            thing.add(turned(blade, 40 * i + kit.near(-15, 15)), leaf, 0, 0.26, 0.3)
    return thing


def small_plant(kit: Kit) -> Thing:
    leaf = kit.main("leaf", "leaves")
    thing = Thing("plant", (0.24, 0.34, 0.24), primary=leaf)
    thing.add(cylinder(0.07, 0.13, 0.09), kit.of(kit.pick("accent", "white")), 0, 0, 0.12)
    return thing.add(soft(0.24, 0.24, 0.24, 1.0, 1.0), leaf, 0, 0.11, 0.12)


def vase(kit: Kit) -> Thing:
    clay = kit.main(kit.pick("accent", "accent2", "white", "fabric"))
    h = kit.near(0.22, 0.34)
    thing = Thing("vase", (0.2, h, 0.2), primary=clay)
    outline = ((0.0, 0.0), (0.06, 0.0), (0.1, h * 0.35), (0.09, h * 0.6), (0.04, h * 0.85), (0.055, h), (0.0, h * 0.95))
    return thing.add(lathe(outline), clay, 0, 0, 0.1)


def flower(kit: Kit) -> Thing:
    petal = kit.main(kit.pick("accent", "accent2", (226.0, 70.0, 96.0), (240.0, 190.0, 60.0)))
    thing = Thing("flower", (0.3, 0.5, 0.3), primary=petal)
    thing.add(cylinder(0.05, 0.2, 0.07), kit.of("white"), 0, 0, 0.15)
    for i in range(6):
        x, z, y = 0.1 * ((i % 3) - 1), 0.09 * ((i // 3) - 0.5), 0.3 + 0.06 * (i % 2)
        thing.add(cylinder(0.008, y - 0.1, segments=6), kit.of("leaf"), x * 0.6, 0.12, 0.15 + z * 0.6)
        thing.add(soft(0.12, 0.1, 0.12, 1.0, 1.0), petal, x, y, 0.15 + z)
    return thing


def book(kit: Kit) -> Thing:
    cover = kit.main(kit.pick("accent", "accent2", "fabric", "dark"))
    thing = Thing("book", (0.26, 0.12, 0.2), primary=cover)
    thing.add(box(0.26, 0.04, 0.19), cover, 0, 0, 0.1)
    return thing.add(turned(box(0.24, 0.035, 0.17), 14), kit.trim(cover, 0.6), 0.01, 0.04, 0.1)


def box_thing(kit: Kit) -> Thing:
    s = kit.near(0.3, 0.55) * (kit.ask.size if kit.ask else 1)
    card = kit.main(kit.pick((196.0, 152.0, 100.0), (196.0, 152.0, 100.0), "accent", "wood"), kit.pick("plain", "wood"))
    thing = Thing("box", (s * 1.2, s, s), primary=card).add(box(s * 1.2, s, s), card, 0, 0, s / 2)
    return thing.add(box(s * 1.22, s * 0.06, s * 1.02), kit.trim(card, 0.8), 0, s * 0.7, s / 2)


def bottle(kit: Kit) -> Thing:
    colour = kit.main(kit.pick((46.0, 110.0, 62.0), (120.0, 66.0, 34.0), "accent", (190.0, 60.0, 50.0)))
    outline = ((0.0, 0.0), (0.045, 0.0), (0.045, 0.18), (0.016, 0.24), (0.016, 0.31), (0.0, 0.31))
    return Thing("bottle", (0.1, 0.31, 0.1), primary=colour).add(lathe(outline, 10), colour, 0, 0, 0.05)


def glass(kit: Kit) -> Thing:
    colour = kit.main(kit.pick((206.0, 222.0, 226.0), "accent"))
    return Thing("glass", (0.1, 0.14, 0.1), primary=colour).add(cylinder(0.035, 0.13, 0.045, 10), colour, 0, 0, 0.05)


def plate(kit: Kit) -> Thing:
    white = kit.main("white")
    thing = Thing("plate", (0.28, 0.04, 0.28), primary=white)
    return thing.add(cylinder(0.09, 0.03, 0.14, 18), white, 0, 0, 0.14)


def food(kit: Kit) -> Thing:
    """A bowl of fruit."""
    ripe = kit.main(kit.pick((204.0, 48.0, 40.0), (236.0, 152.0, 40.0), (130.0, 172.0, 50.0)))
    thing = Thing("food", (0.34, 0.24, 0.34), primary=ripe)
    thing.add(cylinder(0.09, 0.09, 0.17, 18), kit.of(kit.pick("white", "wood", "accent2")), 0, 0, 0.17)
    for x, z, y in ((-0.07, 0.13, 0.07), (0.07, 0.13, 0.07), (0.0, 0.23, 0.07), (0.0, 0.16, 0.14)):
        thing.add(sphere(0.065), ripe, x, y, z)
    return thing


def pot(kit: Kit) -> Thing:
    metal = kit.main(kit.pick("metal", "accent", "dark"))
    thing = Thing("pot", (0.3, 0.2, 0.26), primary=metal).add(cylinder(0.11, 0.14, 0.12), metal, 0, 0, 0.13)
    return thing.add(cylinder(0.12, 0.03, 0.03), kit.trim(metal, 0.8), 0, 0.14, 0.13).add(
        box(0.34, 0.025, 0.04), kit.of("dark"), 0, 0.1, 0.13
    )


def basket(kit: Kit) -> Thing:
    straw = kit.main((190.0, 146.0, 92.0), "weave", 0.2)
    r = kit.near(0.18, 0.26)
    outline = ((0.0, 0.0), (r * 0.8, 0.0), (r, r * 1.5), (r * 0.9, r * 1.5), (r * 0.75, r * 0.3), (0.0, r * 0.3))
    return Thing("basket", (2 * r, r * 1.5, 2 * r), primary=straw).add(lathe(outline), straw, 0, 0, r)


def bag(kit: Kit) -> Thing:
    cloth = kit.main(kit.pick("accent", "accent2", "dark"))
    thing = Thing("bag", (0.4, 0.5, 0.24), primary=cloth).add(soft(0.4, 0.36, 0.24, 0.35), cloth, 0, 0, 0.12)
    return (
        thing.add(box(0.03, 0.16, 0.03), kit.trim(cloth), -0.1, 0.33, 0.12)
        .add(box(0.03, 0.16, 0.03), kit.trim(cloth), 0.1, 0.33, 0.12)
        .add(box(0.23, 0.03, 0.03), kit.trim(cloth), 0, 0.47, 0.12)
    )


def ball(kit: Kit) -> Thing:
    r = kit.near(0.12, 0.2) * (kit.ask.size if kit.ask else 1)
    skin = kit.main(kit.pick("accent", "accent2", (222.0, 122.0, 48.0)))
    return Thing("ball", (2 * r, 2 * r, 2 * r), primary=skin).add(sphere(r), skin, 0, 0, r)


def plaything(kit: Kit) -> Thing:
    """A teddy bear."""
    fur = kit.main(kit.pick((172.0, 120.0, 70.0), "accent", "accent2"))
    thing = Thing("plaything", (0.34, 0.46, 0.3), primary=fur)
    thing.add(soft(0.24, 0.26, 0.2, 1.0, 1.0), fur, 0, 0, 0.14).add(soft(0.2, 0.18, 0.18, 1.0, 1.0), fur, 0, 0.24, 0.14)
    for sx in (-1, 1):
        thing.add(soft(0.08, 0.08, 0.05, 1.0, 1.0), kit.trim(fur), sx * 0.08, 0.38, 0.14)
        thing.add(soft(0.1, 0.1, 0.2, 0.9), fur, sx * 0.1, 0.0, 0.24).add(
            soft(0.16, 0.09, 0.1, 0.9), fur, sx * 0.15, 0.16, 0.17
        )
    return thing


def sculpture(kit: Kit) -> Thing:
    stone = kit.main(kit.pick("white", (180.0, 176.0, 168.0), "metal"))
    thing = Thing("sculpture", (0.6, 1.7, 0.6), primary=stone)
    thing.add(box(0.5, 0.7, 0.5), kit.of((150.0, 146.0, 140.0)), 0, 0, 0.3)
    thing.add(lathe(((0.0, 0.0), (0.2, 0.0), (0.16, 0.3), (0.23, 0.5), (0.08, 0.64), (0.0, 0.64))), stone, 0, 0.7, 0.3)
    return thing.add(soft(0.22, 0.28, 0.24, 0.9, 0.9), stone, 0, 1.3, 0.3)


def barrel(kit: Kit) -> Thing:
    r, h = kit.near(0.28, 0.36), kit.near(0.75, 0.95)
    wood = kit.main((150.0, 100.0, 58.0), "wood")
    thing = Thing("barrel", (2 * r, h, 2 * r), primary=wood)
    thing.add(
        lathe(((0.0, 0.0), (r * 0.8, 0.0), (r, h * 0.35), (r, h * 0.65), (r * 0.8, h), (0.0, h * 0.97))), wood, 0, 0, r
    )
    for y in (0.22, 0.72):
        thing.add(cylinder(r * 0.98, h * 0.05), kit.of("dark"), 0, y * h, r)
    return thing


def tank(kit: Kit) -> Thing:
    r, h = kit.near(0.4, 0.6), kit.near(1.5, 2.2)
    metal = kit.main(kit.pick("metal", "accent", (150.0, 156.0, 160.0)))
    thing = Thing("tank", (2 * r, h, 2 * r), primary=metal)
    thing.add(lathe(((0.0, 0.0), (r, 0.1), (r, h - 0.25), (r * 0.5, h), (0.0, h)), 20), metal, 0, 0, r)
    return thing.add(cylinder(r * 1.02, 0.08), kit.trim(metal), 0, h * 0.5, r).add(
        box(0.12, 0.12, 0.8), kit.trim(metal), r * 0.5, h * 0.3, r
    )


def ladder(kit: Kit) -> Thing:
    wood = kit.main("wood")
    thing = Thing("ladder", (0.5, 2.1, 0.5), primary=wood)
    for sx in (-1, 1):
        thing.add(rotate(box(0.05, 2.1, 0.05), "x", -11), wood, sx * 0.22, 0, 0.45)
    for i in range(6):
        y = 0.25 + 0.32 * i
        thing.add(box(0.42, 0.04, 0.06), wood, 0, y, 0.45 - y * 0.195)
    return thing


def computer(kit: Kit) -> Thing:
    """A laptop."""
    shell = kit.main(kit.pick((176.0, 180.0, 186.0), "dark"))
    thing = Thing("computer", (0.36, 0.26, 0.3), primary=shell).add(box(0.36, 0.02, 0.24), shell, 0, 0, 0.18)
    lit = kit.of((52.0, 96.0, 170.0), "screen", 1.0)
    back = rotate(move(box(0.36, 0.24, 0.015)), "x", -14)
    face = rotate(move(panel(0.33, 0.21), y=0.015, z=0.012), "x", -14)
    return thing.add(back, shell, 0, 0.01, 0.07).add(face, lit, 0, 0.01, 0.07)


def monitor(kit: Kit) -> Thing:
    shell = kit.main("dark")
    thing = Thing("monitor", (0.58, 0.5, 0.22), primary=shell)
    thing.add(box(0.58, 0.36, 0.03), shell, 0, 0.14, 0.08).add(box(0.05, 0.16, 0.03), shell, 0, 0, 0.07)
    thing.add(box(0.24, 0.015, 0.18), shell, 0, 0, 0.1)
    picture = kit.pick((52.0, 96.0, 170.0), (40.0, 130.0, 120.0), (60.0, 62.0, 90.0))
    return thing.add(panel(0.54, 0.32), kit.of(picture, "screen", 1.0), 0, 0.16, 0.097)


def television(kit: Kit) -> Thing:
    """A flat set on a low cabinet (the cabinet is an object of its own)."""
    w = kit.near(1.0, 1.4)
    shell = kit.main((28.0, 28.0, 32.0))
    thing = Thing("television", (w, 0.75, 0.3), primary=shell)
    thing.add(box(w, w * 0.58, 0.05), shell, 0, 0.08, 0.12).add(box(w * 0.4, 0.08, 0.2), shell, 0, 0, 0.15)
    screen_colour = kit.pick((36.0, 38.0, 46.0), (64.0, 110.0, 170.0), (120.0, 70.0, 60.0))
    return thing.add(
        panel(w * 0.94, w * 0.52), kit.of(screen_colour, kit.pick("plain", "picture"), 1.0), 0, 0.08 + w * 0.03, 0.15
    )
