"""Scenes without walls: streets, parks, beaches, mountains, and still lifes of simple solids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dmp_core.render.decor import asked_material, hsv
from dmp_core.render.kit import Kit, Maker, Thing, turned
from dmp_core.render.landmarks import OUTDOOR, castle
from dmp_core.render.language import SceneSpec
from dmp_core.render.makers import MAKERS
from dmp_core.render.materials import Material, mix, shade
from dmp_core.render.mesh import box, cylinder, hills, lathe, panel, scale, slab, soft, sphere
from dmp_core.render.room import Room, Wish
from dmp_core.render.scene import Placed, Scene, look
from dmp_core.render.vocabulary import RGB


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
        cylinder(0.16, 0.4, segments=24),
        cylinder(0.2, 0.44, 0.0, 24),
        sphere(0.2),
        box(0.32, 0.32, 0.32),
        soft(0.4, 0.3, 0.3, 0.6),
        lathe(((0.0, 0.0), (0.14, 0.0), (0.06, 0.2), (0.16, 0.4), (0.0, 0.4)), 20),
        turned(cylinder(0.22, 0.4, 0.0, 4), 20),
    )
    return Thing("sculpture", (0.4, 0.44, 0.4), primary=paint).add(shape, paint, 0, 0, 0.2)


def _tabletop(room: Yard, thing: Thing) -> list[Placed]:
    """Scaled to stand on a table: 25 to 60 cm tall."""
    largest = max(thing.size)
    factor = room.near(0.4, 0.6) / largest if largest > 0.75 else 1.25
    thing.parts = [(scale(m, factor, factor, factor), mat) for m, mat in thing.parts]
    thing.children = []
    w, h, d = thing.size
    thing.size = (w * factor, h * factor, d * factor)
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
    "street": _street,
    "park": _park,
    "coast": _coast,
    "mountains": _mountains,
    "still_life": _still_life,
}


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
