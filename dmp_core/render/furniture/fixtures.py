"""What hangs on walls and ceilings, and what is built in."""

from __future__ import annotations

from dmp_core.render.kit import Kit, Thing, turned
from dmp_core.render.materials import Material, mix, shade
from dmp_core.render.mesh import box, cylinder, move, panel, rotate, soft, sphere, wavy


def painting(kit: Kit) -> Thing:
    size = kit.ask.size if kit.ask else 1.0
    w, h = kit.near(0.5, 1.1) * size, kit.near(0.45, 0.8) * size
    frame = kit.of(kit.pick("wood", "dark", "metal", "white"))
    thing = Thing("painting", (w, h, 0.05), primary=None)
    thing.add(box(w, h, 0.035), frame, 0, 0, 0.018)
    tones = kit.ask.colours if kit.ask and kit.ask.colours else ()
    a = tones[0] if tones else kit.colour(kit.pick("accent", "accent2", "fabric"))
    art = Material(
        a,
        "picture",
        shade(a, 0.6) if tones else kit.colour(kit.pick("accent2", "fabric", "wood")),
        1.0,
        0.0,
        int(kit.rng.integers(1 << 30)),
    )
    thing.primary = art
    return thing.add(panel(w - 0.08, h - 0.08), art, 0, 0.04, 0.038)


def poster(kit: Kit) -> Thing:
    a = kit.main(kit.pick("accent", "accent2")).colour
    art = Material(a, "picture", kit.colour("fabric"), 1.0, 0.0, int(kit.rng.integers(1 << 30)))
    return (
        Thing("poster", (0.6, 0.85, 0.02), primary=art)
        .add(box(0.6, 0.85, 0.01), kit.of("white"), 0, 0, 0.006)
        .add(panel(0.56, 0.81), art, 0, 0.02, 0.013)
    )


def mirror(kit: Kit) -> Thing:
    """Diffuse light grey in place of a specular pane, so that albedo and shading stay defined."""
    w, h = kit.near(0.5, 0.9), kit.near(0.7, 1.1)
    frame = kit.main(kit.pick("wood", "metal", "white"))
    thing = Thing("mirror", (w, h, 0.05), primary=frame)
    thing.add(box(w, h, 0.035), frame, 0, 0, 0.018)
    return thing.add(panel(w - 0.09, h - 0.09), Material((196.0, 208.0, 214.0)), 0, 0.045, 0.038)


def clock(kit: Kit) -> Thing:
    rim = kit.main(kit.pick("dark", "accent", "wood"))
    thing = Thing("clock", (0.4, 0.4, 0.06), primary=rim)
    thing.add(rotate(cylinder(0.2, 0.05, segments=20), "x", 90), rim, 0, 0.2, 0.0)
    return thing.add(
        panel(0.24, 0.24),
        kit.of(mix(rim.colour, (240.0, 240.0, 236.0), 0.3) if kit.has_wish() else "white", "clock", 1.0),
        0,
        0.08,
        0.052,
    )


def flag(kit: Kit) -> Thing:
    cloth = kit.main("accent", kit.pick("stripes", "plain"), 0.6)
    return Thing("flag", (0.9, 0.6, 0.08), primary=cloth).add(wavy(0.9, 0.6, 2, 0.025), cloth, 0, 0, 0.02)


def signboard(kit: Kit) -> Thing:
    board = kit.main(kit.pick("accent", "accent2", "dark"))
    w = kit.near(0.9, 1.6)
    art = Material(
        board.colour,
        "sign",
        (246.0, 244.0, 230.0) if max(board.colour) < 225 else (30.0, 30.0, 34.0),
        1.0,
        0.0,
        int(kit.rng.integers(1 << 30)),
    )
    return (
        Thing("signboard", (w, 0.4, 0.06), primary=art)
        .add(box(w, 0.4, 0.04), board, 0, 0, 0.02)
        .add(panel(w * 0.96, 0.36), art, 0, 0.02, 0.042)
    )


def whiteboard(kit: Kit) -> Thing:
    w, h = 2.2, 1.1
    board = kit.main(kit.pick((236.0, 240.0, 240.0), (44.0, 88.0, 66.0), (44.0, 88.0, 66.0)))
    thing = Thing("whiteboard", (w, h, 0.08), primary=board)
    return (
        thing.add(box(w, h, 0.03), kit.of(kit.pick("wood", "metal")), 0, 0, 0.016)
        .add(box(w - 0.1, h - 0.1, 0.01), board, 0, 0.05, 0.035)
        .add(box(w * 0.7, 0.03, 0.07), kit.of("wood"), 0, 0, 0.06)
    )


def screen(kit: Kit) -> Thing:
    w = kit.near(1.4, 2.2)
    cloth = kit.main((228.0, 230.0, 232.0))
    return (
        Thing("screen", (w, w * 0.6, 0.06), primary=cloth)
        .add(box(w, w * 0.6, 0.03), kit.of("dark"), 0, 0, 0.02)
        .add(box(w * 0.96, w * 0.55, 0.01), cloth, 0, w * 0.025, 0.04)
    )


def radiator(kit: Kit) -> Thing:
    white = kit.main("white")
    thing = Thing("radiator", (1.0, 0.6, 0.12), primary=white)
    for i in range(10):
        thing.add(soft(0.09, 0.55, 0.1, 0.4), white, -0.45 + 0.1 * i, 0.08, 0.07)
    return thing


def door(kit: Kit) -> Thing:
    w, h = 0.92, 2.05
    wood = kit.main(kit.pick("wood", "wood", "white", "accent"), kit.pick("wood", "plain"))
    thing = Thing("door", (w + 0.16, h + 0.08, 0.1), primary=wood)
    frame = kit.trim(wood, 0.7)
    thing.add(box(w, h, 0.05), wood, 0, 0, 0.03).add(box(w + 0.16, 0.08, 0.07), frame, 0, h, 0.035)
    for sx in (-1, 1):
        thing.add(box(0.08, h, 0.07), frame, sx * (w / 2 + 0.04), 0, 0.035)
    for y, ph in ((0.2, 0.7), (1.1, 0.75)):
        for sx in (-1, 1):
            thing.add(box(w * 0.34, ph, 0.02), kit.trim(wood, 1.12), sx * w * 0.22, y, 0.06)
    return thing.add(sphere(0.045), kit.of("metal"), w * 0.4, 0.98, 0.09)


def curtain(kit: Kit) -> Thing:
    """One panel of unit width and height; the room scales a pair to its window."""
    cloth = kit.main(kit.pick("fabric", "accent", "fabric2", "white"), kit.pick("plain", "plain", "stripes"), 0.5)
    return Thing("curtain", (1.0, 1.0, 0.12), primary=cloth).add(wavy(1.0, 1.0, 4, 0.045), cloth, 0, 0, 0.01)


def blind(kit: Kit) -> Thing:
    """Slats of unit width; the room scales them to the window."""
    slat = kit.main(kit.pick("white", "wood"))
    thing = Thing("blind", (1.0, 0.7, 0.06), primary=slat)
    for i in range(9):
        thing.add(rotate(box(1.0, 0.008, 0.07), "x", 35), slat, 0, 0.05 + i * 0.075, 0.04)
    return thing


def ceiling_light(kit: Kit) -> Thing:
    """Hangs down from y = 0."""
    glow = Material((255.0, 246.0, 224.0), emission=6.0)
    thing = Thing("light", (0.5, 0.4, 0.5), primary=glow, lamp=True)
    kind = "pendant" if kit.has_wish() else kit.pick("panel", "pendant", "dome")
    if kind == "panel":
        # Housings keep the glow off the ceiling right beside it, where sampling would be noisiest.
        return thing.add(box(0.96, 0.06, 0.46), kit.of("white"), 0, -0.06, 0.0).add(
            box(0.86, 0.01, 0.36), glow, 0, -0.075, 0.0
        )
    if kind == "dome":
        thing.add(cylinder(0.27, 0.05, segments=20), kit.of("white"), 0, -0.05, 0.0)
        return thing.add(soft(0.42, 0.14, 0.42, 1.0, 1.0), glow, 0, -0.14, 0.0)
    shade_colour = kit.main(kit.pick("accent", "dark", "metal"))
    thing.add(cylinder(0.01, 0.55, segments=6), kit.of("dark"), 0, -0.6, 0)
    return thing.add(cylinder(0.2, 0.2, 0.06), shade_colour, 0, -0.75, 0).add(sphere(0.09), glow, 0, -0.82, 0)


def chandelier(kit: Kit) -> Thing:
    metal = kit.main("metal")
    glow = Material((255.0, 236.0, 190.0), emission=5.0)
    thing = Thing("chandelier", (0.9, 0.9, 0.9), primary=metal, lamp=True)
    thing.add(cylinder(0.012, 0.6, segments=6), metal, 0, -0.6, 0).add(sphere(0.08), metal, 0, -0.72, 0)
    for i in range(6):
        arm = turned(move(box(0.025, 0.025, 0.38), z=0.19), 60 * i)
        thing.add(arm, metal, 0, -0.66, 0)
        bulb = turned(move(soft(0.08, 0.16, 0.08, 1.0, 1.0), z=0.38), 60 * i)
        thing.add(bulb, glow, 0, -0.63, 0)
    return thing


def fireplace(kit: Kit) -> Thing:
    stone = kit.main(
        kit.pick("white", (150.0, 92.0, 74.0), (150.0, 146.0, 140.0)), kit.pick("plain", "brick", "stone", "marble")
    )
    thing = Thing("fireplace", (1.5, 1.2, 0.42), primary=stone)
    for sx in (-1, 1):
        thing.add(box(0.35, 1.1, 0.38), stone, sx * 0.56, 0, 0.19)
    thing.add(box(0.8, 0.35, 0.38), stone, 0, 0.75, 0.19).add(
        box(1.6, 0.08, 0.44), kit.of(kit.pick("wood", "white")), 0, 1.1, 0.22
    )
    thing.add(box(0.8, 0.75, 0.04), kit.of((36.0, 32.0, 30.0)), 0, 0, 0.03)
    for x in (-0.12, 0.12):
        thing.add(rotate(cylinder(0.05, 0.36, segments=8), "z", 80), kit.of((90.0, 56.0, 36.0)), x + 0.16, 0.08, 0.2)
    fire = Material((255.0, 150.0, 46.0), emission=3.0)
    thing.add(soft(0.3, 0.34, 0.12, 1.0, 1.0), fire, 0, 0.1, 0.18)
    thing.spots = [(x, 1.18, 0.1, 0.3, 0.3) for x in (0.0, -0.5, 0.5)]
    return thing


def stairs(kit: Kit) -> Thing:
    """A straight flight that climbs towards its back wall."""
    w, n, rise, run = kit.near(1.2, 1.7), 9, 0.18, 0.27
    wood = kit.main(kit.pick("wood", "white", (160.0, 156.0, 150.0)), kit.pick("wood", "plain"))
    d = n * run
    thing = Thing("stairs", (w, n * rise, d), primary=wood)
    for i in range(n):
        h = (i + 1) * rise
        z = d - (i + 0.5) * run
        thing.add(box(w, h - 0.04, run), kit.trim(wood, 0.82), 0, 0, z).add(
            box(w + 0.04, 0.04, run + 0.03), wood, 0, h - 0.04, z + 0.015
        )
    return thing


def railing(kit: Kit) -> Thing:
    wood = kit.main(kit.pick("wood", "dark", "white"))
    thing = Thing("railing", (1.8, 1.0, 0.08), primary=wood).add(box(1.8, 0.07, 0.08), wood, 0, 0.93, 0.04)
    for i in range(9):
        thing.add(box(0.035, 0.94, 0.035), wood, -0.86 + i * 0.215, 0, 0.04)
    return thing


def column(kit: Kit) -> Thing:
    """Reaches up to 3 m; halls scale it to their ceiling."""
    stone = kit.main(
        kit.pick((206.0, 200.0, 188.0), (206.0, 200.0, 188.0), "wall"), kit.pick("plain", "marble", "stone")
    )
    r = kit.near(0.18, 0.3)
    thing = Thing("column", (2.6 * r, 3.0, 2.6 * r), primary=stone)
    trim = kit.trim(stone, 0.85)
    thing.add(cylinder(r, 2.7, r * 0.88, 18), stone, 0, 0.15, 1.3 * r)
    return thing.add(box(2.6 * r, 0.15, 2.6 * r), trim, 0, 0, 1.3 * r).add(
        box(2.6 * r, 0.15, 2.6 * r), trim, 0, 2.85, 1.3 * r
    )


def stage(kit: Kit) -> Thing:
    wood = kit.main("wood", "planks")
    return Thing("stage", (4.2, 0.6, 1.8), primary=wood).add(box(4.2, 0.6, 1.8), wood, 0, 0, 0.9)


def grandstand(kit: Kit) -> Thing:
    paint = kit.main(kit.pick("accent", "fabric", "metal"))
    thing = Thing("grandstand", (3.6, 1.8, 2.0), primary=paint)
    for i in range(4):
        base = kit.trim(paint, 0.85) if kit.has_wish() else kit.of((150.0, 150.0, 152.0))
        thing.add(box(3.6, 0.42 * (i + 1), 0.5), base, 0, 0, 1.75 - 0.5 * i)
        thing.add(box(3.6, 0.05, 0.34), paint, 0, 0.42 * (i + 1), 1.8 - 0.5 * i)
    return thing


def swimming_pool(kit: Kit) -> Thing:
    """A basin let into a low rim: water 8 cm below the edge."""
    w, d = 3.4, 4.4
    water = kit.main((64.0, 178.0, 206.0), "waves", 2.0)
    thing = Thing("swimming pool", (w, 0.2, d), primary=water)
    thing.add(box(w, 0.06, d), water, 0, 0.02, d / 2)
    rim = kit.of("white", "tiles", 1.0)
    for sx in (-1, 1):
        thing.add(box(0.2, 0.16, d + 0.4), rim, sx * (w / 2 + 0.1), 0, d / 2)
        thing.add(box(w, 0.16, 0.2), rim, 0, 0, d / 2 + sx * (d / 2 + 0.1))
    return thing
