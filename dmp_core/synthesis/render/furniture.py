"""Makers of indoor furniture: `maker(kit) -> Thing`. One function an object, registered in MAKERS."""

from __future__ import annotations

from collections.abc import Callable

from dmp_core.synthesis.render.kit import Kit, Thing, turned
from dmp_core.synthesis.render.materials import Material, mix, shade
from dmp_core.synthesis.render.mesh import box, cylinder, lathe, move, panel, rotate, soft, sphere, wavy

Maker = Callable[[Kit], Thing]


def _legs(
    thing: Thing, w: float, d: float, h: float, material: Material, r: float = 0.025, z: float | None = None
) -> None:
    z = d / 2 if z is None else z
    for sx in (-1, 1):
        for sz in (-1, 1):
            thing.add(box(2 * r, h, 2 * r), material, sx * (w / 2 - r), 0, z + sz * (d / 2 - r))


def _drawers(
    thing: Thing, w: float, h: float, d: float, rows: int, columns: int, face: Material, knob: Material, y: float = 0.0
) -> None:
    """Raised fronts with knobs on the +z side of a box whose back is at z = 0."""
    cw, ch = w / columns, h / rows
    for r in range(rows):
        for c in range(columns):
            x, yy = -w / 2 + (c + 0.5) * cw, y + r * ch
            thing.add(box(cw * 0.9, ch * 0.88, 0.02), face, x, yy + ch * 0.06, d + 0.01)
            thing.add(box(0.05, 0.02, 0.02), knob, x, yy + ch * 0.5, d + 0.03)


# ---------------------------------------------------------------- bedroom


def bed(kit: Kit) -> Thing:
    """Frame, headboard, mattress and bedspread; pillows, blanket and cushions are put on by the room."""
    size = kit.ask.size if kit.ask else 1.0
    word = kit.ask.word if kit.ask else ""
    w, d = kit.pick(1.0, 1.5, 1.6, 1.8) * min(max(size, 0.8), 1.25), kit.near(1.95, 2.15)
    if "bunk" in word:
        return _bunk_bed(kit)
    w = max(w, 1.6) if "double" in word else min(w, 1.0) if "single" in word else w
    spread = kit.main("fabric", kit.pick("plain", "plain", "stripes", "plaid", "weave", "floral", "dots"))
    frame = (
        kit.main("wood", "wood")
        if kit.has_wish()
        else kit.pick(kit.of("wood", "wood"), kit.of("wood"), kit.of("dark"), kit.of("white"), kit.of("accent"))
    )
    thing = Thing("bed", (w + 0.12, 1.1, d + 0.1), primary=spread)
    base_h, mattress_h = kit.near(0.24, 0.34), kit.near(0.2, 0.28)
    top = base_h + mattress_h
    thing.add(box(w + 0.08, base_h - 0.08, d), frame, 0, 0.08, d / 2 + 0.05)
    _legs(thing, w, d, 0.1, frame, 0.04, d / 2 + 0.05)
    sheet = Material(shade(spread.colour, 1.5)) if kit.has_wish() else kit.of("white")
    thing.add(soft(w, mattress_h, d - 0.04, 0.18), sheet, 0, base_h - 0.01, d / 2 + 0.05)
    cover = kit.near(0.62, 0.74) * d
    thing.add(soft(w + 0.1, mattress_h + 0.06, cover, 0.2), spread, 0, base_h - 0.02, d + 0.06 - cover / 2)
    if kit.chance(0.6):
        thing.add(soft(w + 0.12, 0.07, 0.26, 0.4), Material(shade(spread.colour, 1.35)), 0, top - 0.01, d - cover + 0.1)
    _headboard(kit, thing, w, frame, spread)
    if kit.chance(0.4):
        thing.add(box(w + 0.1, top + 0.06, 0.05), frame, 0, 0, d + 0.09)
    if kit.chance(0.1) or "canopy" in word or "poster" in word:
        _canopy(thing, w, d, frame, kit)
    thing.spots = [(0.0, top, 0.12, w, 0.45)]
    return thing


def _bunk_bed(kit: Kit) -> Thing:
    """Two narrow beds, one above the other, with a ladder."""
    w, d = 0.95, 2.0
    spread = kit.main("fabric", kit.pick("plain", "stripes", "plaid"))
    frame = kit.of(kit.pick("wood", "white", "accent"))
    thing = Thing("bed", (w + 0.1, 1.75, d + 0.1), primary=spread)
    for sx in (-1, 1):
        for z in (0.05, d + 0.05):
            thing.add(box(0.07, 1.75, 0.07), frame, sx * w / 2, 0, z)
    for y in (0.28, 1.15):
        thing.add(box(w, 0.12, d), frame, 0, y, d / 2 + 0.05).add(
            soft(w - 0.04, 0.2, d - 0.06, 0.2), spread, 0, y + 0.1, d / 2 + 0.05
        )
        thing.add(box(w, 0.25, 0.04), frame, 0, y + 0.12, d + 0.05)
    for k in range(5):
        thing.add(box(0.04, 0.04, 0.4), kit.trim(frame), w / 2 + 0.05, 0.25 + 0.24 * k, d * 0.7)
    thing.spots = [(0.0, 0.58, 0.1, w - 0.1, 0.4)]
    return thing


def _headboard(kit: Kit, thing: Thing, w: float, frame: Material, spread: Material) -> None:
    h = kit.near(0.85, 1.25)
    kind = kit.pick("panel", "panel", "padded", "bars", "arch")
    if kind == "panel":
        thing.add(box(w + 0.12, h, 0.06), frame, 0, 0, 0.03)
    elif kind == "padded":
        n = kit.pick(3, 4, 5)
        pad = Material(shade(spread.colour, 0.85)) if kit.chance(0.5) or kit.has_wish() else kit.of("accent2")
        for i in range(n):
            thing.add(soft(w / n, h - 0.3, 0.14, 0.3), pad, (i + 0.5 - n / 2) * w / n, 0.3, 0.08)
    elif kind == "arch":
        thing.add(box(w + 0.1, h * 0.75, 0.06), frame, 0, 0, 0.03)
        disc = rotate(cylinder((w + 0.1) / 2, 0.06, segments=24), "x", 90)
        squashed = disc._replace(vertices=disc.vertices * [1, 0.5, 1])
        thing.add(squashed, frame, 0, h * 0.75, 0.0)
    else:
        thing.add(box(w + 0.12, 0.07, 0.06), frame, 0, h - 0.07, 0.03)
        for i in range(7):
            thing.add(box(0.04, h - 0.05, 0.04), frame, (i - 3) * (w + 0.06) / 6, 0, 0.03)


def _canopy(thing: Thing, w: float, d: float, frame: Material, kit: Kit) -> None:
    for sx in (-1, 1):
        for z in (0.05, d + 0.05):
            thing.add(box(0.06, 2.05, 0.06), frame, sx * (w / 2 + 0.02), 0, z)
        thing.add(box(0.06, 0.06, d), frame, sx * (w / 2 + 0.02), 2.02, d / 2 + 0.05)
    for z in (0.05, d + 0.05):
        thing.add(box(w, 0.06, 0.06), frame, 0, 2.02, z)
    thing.size = (thing.size[0], 2.1, thing.size[2])


def pillow(kit: Kit) -> Thing:
    w = kit.near(0.5, 0.62)
    cloth = kit.main(
        kit.pick("white", "white", "fabric2", "accent"), kit.pick("plain", "plain", "stripes", "dots"), 0.4
    )
    thing = Thing("pillow", (w, 0.42, 0.2), primary=cloth)
    leaning = rotate(soft(w, 0.16, 0.4, 0.75, 0.32), "x", kit.near(48, 70))
    return thing.add(leaning, cloth, 0, 0.17, 0.2)


def cushion(kit: Kit) -> Thing:
    s = kit.near(0.34, 0.44)
    cloth = kit.main(
        kit.pick("accent", "accent2", "fabric2"), kit.pick("plain", "plain", "stripes", "dots", "motif"), 0.4
    )
    thing = Thing("cushion", (s, s, 0.2), primary=cloth)
    leaning = rotate(soft(s, 0.14, s, 0.75, 0.35), "x", kit.near(58, 75))
    return thing.add(leaning, cloth, 0, s * 0.42, 0.14)


def blanket(kit: Kit) -> Thing:
    """A throw across the foot of a bed of unit width; the room scales it to the bed."""
    cloth = kit.main(kit.pick("accent", "accent2", "fabric2"), kit.pick("plain", "stripes", "plaid", "weave"), 0.5)
    thing = Thing("blanket", (1.0, 0.4, 0.6), primary=cloth)
    thing.add(soft(1.0, 0.34, 0.6, 0.22), cloth, 0, 0, 0.3)
    return thing


def nightstand(kit: Kit) -> Thing:
    w, h, d = kit.near(0.42, 0.55), kit.near(0.45, 0.6), 0.4
    wood = kit.main("wood", kit.pick("wood", "plain"))
    thing = Thing("nightstand", (w, h, d), primary=wood)
    if kit.chance(0.7):
        thing.add(box(w, h - 0.1, d), wood, 0, 0.1, d / 2)
        _legs(thing, w, d, 0.1, kit.trim(wood), 0.02)
        _drawers(thing, w, h - 0.1, d, 2, 1, kit.trim(wood, 1.1), kit.of("metal"), 0.1)
    else:
        thing.add(box(w, 0.04, d), wood, 0, h - 0.04, d / 2).add(box(w * 0.9, 0.03, d * 0.9), wood, 0, 0.2, d / 2)
        _legs(thing, w, d, h, kit.trim(wood))
    thing.spots = [(0, h, 0.06, w * 0.9, d * 0.8)]
    return thing


def wardrobe(kit: Kit) -> Thing:
    w, h, d = kit.near(1.0, 1.9), kit.near(1.95, 2.25), 0.58
    wood = kit.main(kit.pick("wood", "wood", "white", "fabric2"), "plain" if kit.chance(0.4) else "wood")
    thing = Thing("wardrobe", (w, h, d), primary=wood)
    thing.add(box(w, h, d), wood, 0, 0, d / 2).add(box(w + 0.06, 0.06, d + 0.06), kit.trim(wood), 0, h, d / 2)
    doors = 3 if w > 1.5 else 2
    for i in range(doors):
        x = (i + 0.5 - doors / 2) * w / doors
        thing.add(box(w / doors * 0.92, h * 0.9, 0.02), kit.trim(wood, 1.12), x, h * 0.06, d + 0.01)
        thing.add(
            box(0.03, 0.22, 0.03), kit.of("metal"), x + (0.38 if i % 2 == 0 else -0.38) * w / doors, h * 0.45, d + 0.03
        )
    return thing


def dresser(kit: Kit) -> Thing:
    w, h, d = kit.near(0.9, 1.4), kit.near(0.75, 1.0), 0.48
    wood = kit.main(kit.pick("wood", "wood", "white", "accent"), kit.pick("wood", "plain"))
    thing = Thing("dresser", (w, h, d), primary=wood)
    thing.add(box(w, h - 0.1, d), wood, 0, 0.1, d / 2).add(
        box(w + 0.04, 0.04, d + 0.04), kit.trim(wood), 0, h - 0.02, d / 2
    )
    _legs(thing, w, d, 0.1, kit.trim(wood), 0.03)
    _drawers(thing, w, h - 0.12, d, 3, 2, kit.trim(wood, 1.12), kit.of("metal"), 0.1)
    thing.spots = [(-w * 0.28, h, 0.08, w * 0.4, d * 0.8), (w * 0.28, h, 0.08, w * 0.4, d * 0.8)]
    return thing


# ---------------------------------------------------------------- seats


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
    _legs(thing, w, d, 0.12, kit.of("wood"), 0.03)
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
    _legs(thing, w * 0.9, d, 0.14, kit.of("wood"), 0.025)
    thing.spots = [(0, 0.5, 0.28, w * 0.5, 0.3)]
    return thing


def chair(kit: Kit) -> Thing:
    w, d, h = kit.near(0.42, 0.48), 0.46, kit.near(0.85, 1.0)
    wood = kit.main(kit.pick("wood", "wood", "dark", "white", "accent"), kit.pick("wood", "plain"))
    seat = wood if kit.has_wish() else kit.pick(wood, kit.of("accent"), kit.of("fabric"))
    thing = Thing("chair", (w, h, d), primary=wood)
    _legs(thing, w, d, 0.45, wood, 0.022)
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
        _legs(thing, 2 * r * 0.85, 2 * r * 0.85, h - 0.05, seat, 0.018, r)
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
    _legs(thing, w, d, 0.4, kit.trim(wood), 0.04)
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


# ---------------------------------------------------------------- tables and cases


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
        _legs(thing, w - 0.08, d - 0.08, h - 0.06, kit.trim(wood, 0.85), 0.04, d / 2)
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
        _legs(thing, w, d, h - 0.05, kit.trim(wood), 0.03)
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
        _legs(thing, w, d, h - 0.05, kit.of("metal"))
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
    _drawers(thing, w, h - 0.06, d, 1 if h < 1 else 2, 2, kit.trim(wood, 1.12), kit.of("metal"), 0.02)
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


# ---------------------------------------------------------------- kitchen and bathroom


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


# ---------------------------------------------------------------- small things


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


def conveyer_belt(kit: Kit) -> Thing:
    metal = kit.main("metal")
    thing = Thing("conveyer belt", (2.6, 0.85, 0.7), primary=metal)
    thing.add(box(2.6, 0.12, 0.7), metal, 0, 0.7, 0.35).add(box(2.6, 0.02, 0.56), kit.of("dark"), 0, 0.82, 0.35)
    _legs(thing, 2.5, 0.66, 0.7, kit.trim(metal), 0.05, 0.35)
    thing.spots = [(x, 0.84, 0.15, 0.5, 0.4) for x in (-0.8, 0.0, 0.8)]
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


# ---------------------------------------------------------------- on walls and ceilings


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


def pool_table(kit: Kit) -> Thing:
    cloth = kit.main((34.0, 122.0, 76.0))
    thing = Thing("pool table", (2.2, 0.85, 1.2), primary=cloth)
    wood = kit.of("wood", "wood")
    thing.add(box(2.2, 0.2, 1.2), wood, 0, 0.62, 0.6).add(box(2.0, 0.02, 1.0), cloth, 0, 0.82, 0.6)
    _legs(thing, 2.0, 1.0, 0.62, wood, 0.07, 0.6)
    for x, z, c in (
        (0.3, 0.5, (220.0, 40.0, 40.0)),
        (0.42, 0.62, (240.0, 200.0, 50.0)),
        (-0.5, 0.6, (240.0, 240.0, 236.0)),
    ):
        thing.add(sphere(0.04), Material(c), x, 0.84, z)
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


MAKERS: dict[str, Maker] = {
    "bed": bed, "pillow": pillow, "cushion": cushion, "blanket": blanket, "nightstand": nightstand,
    "wardrobe": wardrobe, "dresser": dresser, "sofa": sofa, "armchair": armchair, "chair": chair, "stool": stool,
    "swivel chair": swivel_chair, "bench": bench, "seat": seat, "ottoman": ottoman, "table": table,
    "coffee table": coffee_table, "desk": desk, "counter": counter, "countertop": countertop,
    "kitchen island": kitchen_island, "cabinet": cabinet, "bookcase": bookcase, "shelf": shelf, "stove": stove,
    "refrigerator": refrigerator, "hood": hood, "microwave": microwave, "sink": sink, "bathtub": bathtub,
    "toilet": toilet, "towel": towel, "shower": shower, "washer": washer, "lamp": lamp, "plant": plant, "vase": vase,
    "flower": flower, "book": book, "box": box_thing, "bottle": bottle, "glass": glass, "plate": plate, "food": food,
    "pot": pot, "basket": basket, "bag": bag, "ball": ball, "plaything": plaything, "sculpture": sculpture,
    "barrel": barrel, "tank": tank, "ladder": ladder, "conveyer belt": conveyer_belt, "computer": computer,
    "monitor": monitor, "television": television, "painting": painting, "poster": poster, "mirror": mirror,
    "clock": clock, "flag": flag, "signboard": signboard, "whiteboard": whiteboard, "screen": screen,
    "radiator": radiator, "door": door, "curtain": curtain, "blind": blind, "light": ceiling_light,
    "chandelier": chandelier, "fireplace": fireplace, "stairs": stairs, "railing": railing, "column": column,
    "stage": stage, "grandstand": grandstand, "pool table": pool_table, "bar": bar, "swimming pool": swimming_pool,
}  # fmt: skip
