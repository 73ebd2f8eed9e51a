"""Scenes without walls: streets, parks, beaches, mountains, and still lifes of simple solids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dmp_core.synthesis.render.decor import asked_material, hsv
from dmp_core.synthesis.render.furniture import MAKERS
from dmp_core.synthesis.render.furniture import MAKERS as INDOOR
from dmp_core.synthesis.render.kit import Kit, Thing, turned
from dmp_core.synthesis.render.language import SceneSpec
from dmp_core.synthesis.render.materials import RGB, Material, mix, shade
from dmp_core.synthesis.render.mesh import box, cylinder, hills, lathe, move, panel, prism, rotate, slab, soft, sphere
from dmp_core.synthesis.render.room import Room, Wish
from dmp_core.synthesis.render.scene import Placed, Scene, look

# ---------------------------------------------------------------- makers


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


OUTDOOR: dict[str, Callable[[Kit], Thing]] = {
    "building": building, "skyscraper": skyscraper, "house": house, "tree": tree, "palm": palm, "car": car,
    "streetlight": streetlight, "person": person, "animal": animal, "rock": rock, "fence": fence, "boat": boat,
    "tower": tower, "tent": tent,
}  # fmt: skip
MAKERS.update({k: v for k, v in OUTDOOR.items() if k not in INDOOR})


# ---------------------------------------------------------------- grounds and sky


def _ground(
    room: Room,
    name: str,
    colour: RGB,
    texture: str,
    period: float,
    w: float = 160.0,
    d: float = 160.0,
    x: float = 0.0,
    z: float = -70.0,
    y: float = 0.0,
) -> Placed:
    item = room.spec.find(name)
    base = Material(colour, texture, None, period, 0.0, int(room.rng.integers(1 << 30)))
    if item is not None:
        base = replace(asked_material(item.colour, None, base), texture=texture, period=period)
    thing = Thing(name, (w, 0, d), primary=base).add(slab(w, d), base)
    room.made[name] = room.made.get(name, 0) + 1
    return room.scene.add(thing, x, y, z)


def _sky(room: Room) -> None:
    """A picture behind everything, square on to the camera."""
    camera, mood = room.scene.view, room.scene.mood
    item = room.spec.find("sky")
    colour = item.colour if item and item.colour else mood.sky
    half = 75.0 * np.tan(np.radians(camera.fov) / 2) * 1.05
    sheet = panel(2 * half, 2 * half)
    centre = camera.origin + camera.forward * 75.0
    x, y = sheet.vertices[:, 0], sheet.vertices[:, 1] - half
    vertices = centre + x[:, None] * camera.right + y[:, None] * camera.up
    night = max(mood.sky) < 130 and sum(mood.sky) < 260
    texture = "stars" if night else "clouds"
    horizon = shade(colour, 1.6) if not night else shade(colour, 1.25)
    if room.scene.mood_name in ("sunset", "morning", "warm"):
        colour, horizon = mix(colour, (96.0, 84.0, 160.0), 0.6), mix(colour, (255.0, 214.0, 140.0), 0.4)
    picture = Material(colour, texture, horizon, 1.0, 0.0, int(room.rng.integers(1 << 30)))
    room.scene.backdrop = [(sheet._replace(vertices=vertices), picture)]


class Yard(Room):
    """A room without walls: things may stand anywhere in front of the camera."""

    def fits(self, box_: np.ndarray, pad: float = 0.03) -> bool:
        low, high = box_
        return not any((low < b[1] + pad).all() and (high > b[0] - pad).all() for b in self.solid)

    def make(self, name: str, wish: Wish | None = None, maker: Maker | None = None) -> Thing:
        return super().make(name, wish, maker or OUTDOOR.get(name))


def _scatter(
    room: Yard,
    name: str,
    n: int,
    x: tuple[float, float],
    z: tuple[float, float],
    turn: float | None = None,
    odds: float = 1.0,
    keep: float = 0.0,
) -> list[Placed]:
    """Up to n copies in an area, none nearer to the middle line than `keep`."""
    out = []
    for wish in room.wanted(name, n, odds):
        for _ in range(8):
            px, pz = room.near(*x), room.near(*z)
            if abs(px) < keep:
                continue
            placed = room.put(room.make(name, wish), px, pz, room.near(-180, 180) if turn is None else turn)
            if placed is not None:
                out.append(placed)
                break
    return out


def _street(room: Yard) -> None:
    _ground(room, "sidewalk", (168.0, 164.0, 156.0), "tiles", 4.0, y=-0.02)
    w = room.near(5.0, 7.5)
    _ground(room, "road", (84.0, 86.0, 92.0), "noise", 6.0, w, 160.0)
    stripe = Thing("road", (0.2, 0, 100))
    for k in range(14):
        stripe.add(slab(0.16, 1.6), Material((232.0, 228.0, 214.0)), 0, 0.015, -2 - 3.4 * k)
    room.scene.add(stripe, 0, 0, 0)
    text = f"{room.spec.prompt} {room.spec.keyword}".lower()
    tall = room.named("skyscraper") or any(
        t in text for t in ("city", "tokyo", "new york", "downtown", "cyberpunk", "metropolis", "manhattan")
    )
    low = room.named("house") or any(t in text for t in ("village", "town", "cottage", "suburb", "fairy"))
    kind = "skyscraper" if tall else "house" if low else "building"
    for side in (-1, 1):
        z = -3.0
        while z > -58:
            thing = room.make(kind if room.chance(0.8) else "building", (room.spec.find(kind), 0))
            depth = thing.size[0]
            room.set_down(thing, side * (w / 2 + 2.2 + thing.size[2]), z - depth / 2, -side * 90.0)
            z -= depth + (room.near(0.0, 0.8) if kind != "house" else room.near(1.0, 3.0))
    if "castle" in text or "palace" in text:
        room.scene.main = room.set_down(room.make("building", None, castle), 0, -38.0, 0.0)
    elif room.named("tower"):
        room.scene.main = room.set_down(room.make("tower"), 0, -34.0, 0.0)
    else:
        end = room.make(room.pick(kind, "building", "skyscraper"))
        room.scene.main = room.set_down(end, room.near(-2, 2), -62.0, 0.0)
    for side in (-1, 1):
        for k in range(4):
            spot = -5.0 - 6.5 * k
            if room.chance(0.55) and not (room.spec.find("tree") and not room.named("tree")):
                room.put(room.make("tree"), side * (w / 2 + 1.0), spot, 0.0)
            elif room.chance(0.6):
                room.put(room.make("streetlight"), side * (w / 2 + 0.5), spot + 2.0, 0.0 if side < 0 else 180.0)
    for wish in room.wanted("car", 2, 0.75):
        side = room.pick(-1, 1)
        room.put(room.make("car", wish), side * (w / 2 - 1.0) - side * 0.9, -room.near(6, 18), side * 90.0)
    _scatter(room, "person", 2, (-w / 2 - 1.6, w / 2 + 1.6), (-14, -4), None, 0.5)
    _scatter(room, "animal", 1, (-1.5, 1.5), (-7, -4), None, 0.05)
    _eye(room, (room.near(-1.6, 1.6), room.near(1.5, 2.6), 4.0), (room.near(-0.8, 0.8), room.near(2.6, 4.5), -20.0))


def _park(room: Yard) -> None:
    snow = "snow" in room.spec.prompt.lower()
    _ground(room, "grass", (224.0, 230.0, 238.0) if snow else (104.0, 152.0, 70.0), "lawn", 4.0)
    if room.wanted("path", 1, 0.7):
        _ground(
            room,
            "path",
            (200.0, 178.0, 142.0),
            "noise",
            3.0,
            room.near(1.4, 2.4),
            60.0,
            room.near(-1.5, 1.5),
            -25.0,
            0.02,
        )
    for wish in room.wanted("hill", 2, 0.5):
        _hill(room, "hill", (100.0, 140.0, 80.0), room.near(-25, 25), -58.0, 40.0, 9.0)
        del wish
    close = {"animal": 1, "person": 1, "bench": 1, "house": 1, "car": 1, "sculpture": 1, "ball": 1}
    for name in close:
        odds = {"bench": 0.45, "house": 0.35, "person": 0.25, "animal": 0.3}.get(name, 0.0)
        z = (-22.0, -14.0) if name == "house" else (-8.0, -4.0)
        for placed in _scatter(
            room, name, 1, (-3.5, 3.5), z, None if name not in ("house", "bench") else room.near(-25, 25), odds
        ):
            room.scene.main = placed
    forest = 16 if any(t in room.spec.prompt.lower() for t in ("forest", "wood", "jungle")) else 9
    _scatter(room, "tree", forest, (-16, 16), (-40, -5), None, 1.0, 2.4)
    _scatter(room, "rock", 3, (-6, 6), (-14, -4), None, 0.4, 1.0)
    _scatter(room, "flower", 8, (-4.5, 4.5), (-7, -2.5), None, 0.6, 0.6)
    _scatter(room, "plant", 3, (-5, 5), (-9, -4), None, 0.4, 1.2)
    for k in range(5 if room.wanted("fence", 1, 0.3) else 0):
        room.put(room.make("fence"), -8 + 4.05 * k, -17.0, 0.0, solid=False)
    _eye(room, (room.near(-1, 1), room.near(1.3, 2.2), 3.0), (room.near(-1, 1), room.near(1.2, 2.0), -12.0))


def _hill(room: Yard, name: str, colour: RGB, x: float, z: float, w: float, h: float, peaks: int = 3) -> Placed:
    item = room.spec.find(name)
    base = Material(
        item.colour if item and item.colour else colour, "noise", None, 14.0, 0.0, int(room.rng.integers(1 << 30))
    )
    thing = Thing(name, (w, h, w * 0.5), primary=base).add(hills(w, w * 0.5, h, room.rng, peaks=peaks), base)
    room.made[name] = room.made.get(name, 0) + 1
    return room.scene.add(thing, x, -0.3, z)


def _coast(room: Yard) -> None:
    _ground(
        room, "sea", room.pick((44.0, 124.0, 168.0), (40.0, 150.0, 170.0), (50.0, 100.0, 150.0)), "waves", 7.0, y=-0.06
    )
    shore = room.near(-12.0, -7.0)
    _ground(room, "sand", (224.0, 202.0, 154.0), "noise", 4.0, 160.0, 60.0, 0.0, shore + 30.0)
    if room.wanted("hill", 1, 0.55):
        _hill(room, "hill", (96.0, 128.0, 90.0), room.pick(-1, 1) * room.near(15, 30), -60.0, 44.0, 11.0)
    for placed in _scatter(room, "boat", 2, (-12, 12), (shore - 24, shore - 6), 0.0, 0.8, 2.0):
        room.scene.main = placed
    for wish in room.wanted("tower", 1, 0.35):
        room.scene.main = room.put(room.make("tower", wish), room.pick(-1, 1) * room.near(4, 8), shore - 6, 0.0)
    _scatter(room, "palm", 3, (-7, 7), (shore + 1.0, -2.5), None, 0.7, 2.0)
    _scatter(room, "rock", 4, (-8, 8), (shore - 2, -2), None, 0.7, 1.0)
    _scatter(room, "house", 1, (-7, 7), (shore + 1, -4), room.near(-20, 20), 0.2, 2.5)
    _scatter(room, "person", 1, (-3, 3), (shore + 1, -3), None, 0.3)
    _scatter(room, "animal", 1, (-2, 2), (-6, -3), None, 0.05)
    _scatter(room, "bench", 1, (-2, 2), (-6, -3), 180.0, 0.15)
    _eye(room, (room.near(-1, 1), room.near(1.5, 3.0), 4.0), (room.near(-1.5, 1.5), room.near(1.2, 2.4), -14.0))


def _mountains(room: Yard) -> None:
    text = room.spec.prompt.lower()
    ground, rock_colour = (112.0, 150.0, 78.0), (128.0, 128.0, 134.0)
    name = "grass"
    if any(t in text for t in ("desert", "canyon", "mars", "dune", "sahara")):
        name, ground, rock_colour = "earth", (214.0, 160.0, 100.0), (192.0, 116.0, 76.0)
        ground = (196.0, 104.0, 66.0) if "mars" in text else ground
    elif any(t in text for t in ("snow", "glacier", "arctic", "winter", "ice")):
        name, ground, rock_colour = "earth", (230.0, 234.0, 242.0), (206.0, 214.0, 228.0)
    elif ("moon" in text and "moonlit" not in text) or "lunar" in text:
        name, ground, rock_colour = "earth", (150.0, 150.0, 152.0), (120.0, 120.0, 124.0)
    _ground(room, name, ground, "lawn" if name == "grass" else "noise", 5.0)
    for k in range(3):
        tone = mix(rock_colour, room.scene.mood.sky, 0.12 * k)
        placed = _hill(
            room, "mountain", tone, room.near(-16, 16), -34.0 - 11 * k, 58.0 + 8 * k, room.near(12, 20) + 4 * k, 4
        )
        room.scene.main = room.scene.main or placed
    if room.wanted("river", 1, 0.35):
        _ground(
            room, "river", (70.0, 140.0, 176.0), "waves", 4.0, room.near(2.0, 4.0), 40.0, room.near(-3, 3), -18.0, 0.02
        )
    barren = name == "earth" and room.spec.find("tree") is None
    _scatter(room, "tree", 9, (-16, 16), (-26, -7), None, 0.0 if barren else 0.8, 2.5)
    _scatter(room, "rock", 6, (-9, 9), (-16, -3), None, 0.9, 0.8)
    for thing, odds in (("house", 0.4), ("tent", 0.25), ("person", 0.2), ("animal", 0.1)):
        _scatter(
            room,
            thing,
            1,
            (-4, 4),
            (-16, -9) if thing == "house" else (-9, -5),
            room.near(-30, 30),
            0.0 if barren and thing == "house" else odds,
        )
    _eye(room, (room.near(-1, 1), room.near(1.5, 2.6), 4.0), (room.near(-1, 1), room.near(2.4, 4.0), -20.0))


def _still_life(room: Yard) -> None:
    """Things on a table top before a plain wall; with no nameable things, solids of bright colours."""
    palette = room.palette
    wood = room.spec.find("table")
    top = (
        asked_material(wood.colour, wood.material, Material(palette.wood, "wood", None, 0.8))
        if wood
        else Material(palette.wood, room.pick("wood", "plain", "planks"), None, 0.8)
    )
    back = room.spec.find("wall")
    wall_material = (
        asked_material(back.colour, back.material, Material(palette.wall))
        if back
        else Material(
            palette.wall, room.pick("plain", "plain", "stripes", "motif"), shade(palette.wall, 0.86), 0.5, 0.0, 3
        )
    )
    room.scene.add(Thing("wall", (14, 8, 0)).add(panel(14, 8, unit_uv=False), wall_material), 0, -3.0, -2.2)
    room.scene.add(Thing("table", (12, 0, 8)).add(box(12, 0.2, 6.0), top), 0, -0.2, 0.9)
    skip = (
        "wall",
        "table",
        "floor",
        "ceiling",
        "window",
        "curtain",
        "sky",
        "light",
        "sea",
        "grass",
        "road",
        "rug",
        "mountain",
        "hill",
        "sand",
        "earth",
        "path",
        "river",
        "sidewalk",
    )
    names = [
        i.name
        for i in room.spec.items
        if i.name not in skip and i.count != 0 and (i.name in MAKERS or i.name in OUTDOOR)
    ]
    placed_any: list[Placed] = []
    for name in dict.fromkeys(names):
        for wish in room.wanted(name):
            placed_any += _tabletop(room, room.make(name, wish))
    if len(placed_any) < 3:
        for _ in range(room.pick(3, 4, 5)):
            name = room.pick(
                "vase", "bottle", "ball", "box", "food", "pot", "book", "solid", "solid", "glass", "flower"
            )
            if room.spec.find(name) is None:
                placed_any += _tabletop(room, _solid(room) if name == "solid" else room.make(name, (None, 0)))
    room.scene.main = placed_any[0] if placed_any else None
    _eye(room, (room.near(-0.7, 0.7), room.near(0.7, 1.3), 2.1), (0.0, 0.28, -0.55), 42.0)


def _solid(room: Yard) -> Thing:
    kit = Kit(room.rng, room.palette)
    paint = Material(hsv(room.near(0, 1), room.near(0.5, 0.9), room.near(0.5, 0.95)))
    shape = kit.pick(
        cylinder(0.16, 0.4, segments=24), cylinder(0.2, 0.44, 0.0, 24), sphere(0.2), box(0.32, 0.32, 0.32), soft(0.4, 0.3, 0.3, 0.6),
        lathe(((0.0, 0.0), (0.14, 0.0), (0.06, 0.2), (0.16, 0.4), (0.0, 0.4)), 20), turned(cylinder(0.22, 0.4, 0.0, 4), 20),
    )  # fmt: skip
    return Thing("sculpture", (0.4, 0.44, 0.4), primary=paint).add(shape, paint, 0, 0, 0.2)


def _tabletop(room: Yard, thing: Thing) -> list[Placed]:
    """Scaled to stand on a table: 25 to 60 cm tall."""
    from dmp_core.synthesis.render.mesh import scale

    largest = max(thing.size)
    factor = room.near(0.4, 0.6) / largest if largest > 0.75 else 1.25
    thing.parts = [(scale(m, factor, factor, factor), mat) for m, mat in thing.parts]
    thing.children = []
    thing.size = tuple(s * factor for s in thing.size)
    for _ in range(30):
        placed = room.put(thing, room.near(-0.75, 0.75), room.near(-1.1, 0.1), room.near(-30, 30))
        if placed is not None:
            return [placed]
    return []


def _eye(
    room: Yard, origin: tuple[float, float, float], target: tuple[float, float, float], fov: float | None = None
) -> None:
    room.scene.camera = look(np.array(origin), np.array(target), fov or room.near(54, 66))


RECIPES: dict[str, Callable[[Yard], None]] = {
    "street": _street, "park": _park, "coast": _coast, "mountains": _mountains, "still_life": _still_life,
}  # fmt: skip


def build_outdoor(spec: SceneSpec, rng: np.random.Generator) -> tuple[Scene, Room]:
    """An outdoor scene or still life, camera included."""
    room = Yard(spec, rng, (60.0, 60.0, 60.0))
    scene = room.scene
    scene.outdoor = True
    RECIPES[spec.family](room)
    bright = scene.mood.sun if scene.mood.sun > 0 else (1.2 if scene.mood.ambient > 0.35 else 0.7)
    scene.mood = replace(
        scene.mood, sun=bright, ambient=max(0.15, scene.mood.ambient * (1.0 if spec.family == "street" else 0.6))
    )
    room.sun((room.pick(-1, 1) * room.near(0.4, 1.0), -room.near(0.6, 1.1), -room.near(0.25, 0.9)))
    _sky(room)
    return scene, room
