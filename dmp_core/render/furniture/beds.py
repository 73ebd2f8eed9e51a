"""Beds and what belongs to a bedroom."""

from __future__ import annotations

from dmp_core.render.furniture.parts import drawers, legs
from dmp_core.render.kit import Kit, Thing
from dmp_core.render.materials import Material, shade
from dmp_core.render.mesh import box, cylinder, rotate, soft


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
    legs(thing, w, d, 0.1, frame, 0.04, d / 2 + 0.05)
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
        legs(thing, w, d, 0.1, kit.trim(wood), 0.02)
        drawers(thing, w, h - 0.1, d, 2, 1, kit.trim(wood, 1.1), kit.of("metal"), 0.1)
    else:
        thing.add(box(w, 0.04, d), wood, 0, h - 0.04, d / 2).add(box(w * 0.9, 0.03, d * 0.9), wood, 0, 0.2, d / 2)
        legs(thing, w, d, h, kit.trim(wood))
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
    legs(thing, w, d, 0.1, kit.trim(wood), 0.03)
    drawers(thing, w, h - 0.12, d, 3, 2, kit.trim(wood, 1.12), kit.of("metal"), 0.1)
    thing.spots = [(-w * 0.28, h, 0.08, w * 0.4, d * 0.8), (w * 0.28, h, 0.08, w * 0.4, d * 0.8)]
    return thing
