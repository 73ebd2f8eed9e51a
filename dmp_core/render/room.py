"""The shell of a room and the rules for putting things into it.

World frame: x to the right, y up, z towards the viewer. The back wall is at
z = -depth, the side walls at x = -width/2 and width/2; the front is open, behind
the camera, and lets light in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmp_core.render.decor import PERIODS, Palette, asked_material, draw_palette
from dmp_core.render.furniture.trinkets import small_plant
from dmp_core.render.kit import Kit, Maker, Thing
from dmp_core.render.language import Item, SceneSpec
from dmp_core.render.makers import MAKERS
from dmp_core.render.materials import Material, shade
from dmp_core.render.mesh import box, move, panel, rotate, rotation, scale, slab
from dmp_core.render.scene import Placed, Scene, draw_mood
from dmp_core.render.vocabulary import RGB

Wish = tuple[Item | None, int]
"""What the prompt says of one object to be made, and which of several copies it is."""

FRONT = 3.0  # how far the side walls run on behind z = 0, where the camera stands
_PICTURES = ("painting", "poster", "mirror", "clock", "flag", "signboard", "screen")
_TRIFLES = ("book", "bottle", "glass", "plate", "pot", "vase", "food", "flower", "ball", "clock", "bag", "basket")
_TURN = {"back": 0.0, "left": 90.0, "right": -90.0}


class Room:
    """A scene under construction: sizes in metres, the prompt's wishes, and a collision list."""

    def __init__(self, spec: SceneSpec, rng: np.random.Generator, size: Sequence[float]) -> None:
        self.spec, self.rng = spec, rng
        self.width, self.depth, self.height = (
            s * f for s, f in zip(size, (spec.room_size, spec.room_size, 1.0), strict=True)
        )
        self.palette: Palette = draw_palette(rng, spec.decor)
        name, mood = draw_mood(spec.light, rng)
        self.scene = Scene(mood=mood, mood_name=name)
        self.solid: list[np.ndarray] = []
        self.made: dict[str, int] = {}

    # ------------------------------------------------------------ wishes

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def near(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def named(self, name: str) -> bool:
        """Whether the prompt asks for the object."""
        item = self.spec.find(name)
        return item is not None and item.count != 0

    def wanted(self, name: str, default: int = 1, odds: float = 1.0) -> list[Wish]:
        """One (wish, index) for each copy to make: the prompt's count, else `default` with the given odds."""
        left = -self.made.get(name, 0)
        asks = [i for i in self.spec.items if i.name == name]
        draw = self.rng.random() < odds  # always drawn: the words must not shift later randomness more than needed
        if not asks:
            return [(None, k) for k in range(default if draw and not self.made.get(name) else 0)]
        out: list[Wish] = []
        for item in asks:
            count = max(2, default) if item.count is None else item.count
            out += [(item, k) for k in range(count)]
        return out[-left:] if left < 0 else out

    def make(self, name: str, wish: Wish | None = None, maker: Maker | None = None) -> Thing:
        ask, index = wish if wish is not None else (self.spec.find(name), self.made.get(name, 0))
        thing = (maker or MAKERS[name])(Kit(self.rng, self.palette, ask, index))
        if name in _PICTURES and self.width > 5.5:  # large rooms hang large pictures
            thing.rescale(1.5)
        if name in _TRIFLES and self.named(name):  # what the prompt names should be seen
            thing.rescale(1.4)
        return thing

    # ------------------------------------------------------------ placing

    def _box_of(self, thing: Thing, x: float, y: float, z: float, turn: float) -> np.ndarray:
        w, h, d = thing.size
        corners = np.array([[sx * w / 2, 0, cz] for sx in (-1, 1) for cz in (0, d)]) @ rotation("y", turn).T
        low, high = corners.min(0) + np.array([x, y, z]), corners.max(0) + np.array([x, y, z])
        high[1] += h
        return np.stack([low, high])

    def fits(self, box_: np.ndarray, pad: float = 0.03) -> bool:
        low, high = box_
        inside = (
            low[0] > -self.width / 2 - 0.02
            and high[0] < self.width / 2 + 0.02
            and low[2] > -self.depth - 0.02
            and high[1] < self.height + 0.01
        )
        return inside and not any(
            (low < b[1] - 0.005 + pad).all() and (high > b[0] + 0.005 - pad).all() for b in self.solid
        )

    def put(
        self,
        thing: Thing,
        x: float,
        z: float,
        turn: float = 0.0,
        y: float = 0.0,
        solid: bool = True,
    ) -> Placed | None:
        """Place unless something is in the way. Not solid: rugs and other things that may overlap."""
        if solid and not self.fits(self._box_of(thing, x, y, z, turn)):
            return None
        return self.set_down(thing, x, z, turn, y, solid)

    def set_down(
        self, thing: Thing, x: float, z: float, turn: float = 0.0, y: float = 0.0, solid: bool = True
    ) -> Placed:
        """Place whatever may be in the way."""
        if solid:
            self.solid.append(self._box_of(thing, x, y, z, turn))
        self.made[thing.name] = self.made.get(thing.name, 0) + 1
        for child, *_ in thing.children:
            self.made[child.name] = self.made.get(child.name, 0) + 1
        return self.scene.add(thing, x, y, z, turn)

    def against(
        self,
        thing: Thing,
        wall: str,
        at: float | None = None,
        y: float = 0.0,
        tries: int = 14,
        gap: float = 0.02,
        force: bool = False,
    ) -> Placed | None:
        """With its back to a wall; `at` is the position along it (x for the back wall, z for the sides).

        force: place it whatever may be in the way.
        """
        place = self.set_down if force else self.put
        for _ in range(tries):
            span = thing.size[0] / 2
            if wall == "back":
                reach = max(0.0, self.width / 2 - span)
                x, z = self.near(-reach, reach) if at is None else float(np.clip(at, -reach, reach)), -self.depth + gap
            else:
                # Nearer than that the side walls are seldom in the picture.
                low, high = -self.depth + span, max(-self.depth + span + 0.1, -0.4 * self.depth)
                z = self.near(low, high) if at is None else max(at, low)
                x = (-1 if wall == "left" else 1) * (self.width / 2 - gap)
            placed = place(thing, x, z, _TURN[wall], y)
            if placed is not None or at is not None:
                return placed
        return None

    def surely_against(self, thing: Thing, wall: str, at: float | None = None, gap: float = 0.02) -> Placed:
        """Against the wall, or the middle of the back wall, even where it is too wide for the room."""
        placed = self.against(thing, wall, at, gap=gap) or self.against(thing, "back", 0.0, gap=gap)
        return placed or self.set_down(thing, 0.0, -self.depth + gap)

    def anywhere(
        self, thing: Thing, walls: tuple[str, ...] = ("back", "left", "right"), y: float = 0.0
    ) -> Placed | None:
        """Against the first wall, in random order, that has room."""
        for k in self.rng.permutation(len(walls)):
            placed = self.against(thing, walls[int(k)], y=y)
            if placed is not None:
                return placed
        return None

    def standing(
        self,
        thing: Thing,
        turn: float | None = None,
        tries: int = 20,
        region: tuple[float, float, float, float] | None = None,
    ) -> Placed | None:
        """Free on the floor; region = (x0, x1, z0, z1)."""
        x0, x1, z0, z1 = region or (-self.width * 0.36, self.width * 0.36, -self.depth * 0.8, -self.depth * 0.25)
        for _ in range(tries):
            facing = self.near(-70, 70) if turn is None else turn
            placed = self.put(thing, self.near(x0, x1), self.near(z0, z1), facing)
            if placed is not None:
                return placed
        return None

    def on(
        self, parent: Placed, thing: Thing, spot: int = 0, dx: float = 0.0, dz: float = 0.0, turn: float = 0.0
    ) -> Placed:
        """On one of the parent's spots."""
        spots = parent.thing.spots
        x, y, z, _, _ = spots[spot % len(spots)]
        px, py, pz = parent.world(x + dx, y, z + dz)
        self.made[thing.name] = self.made.get(thing.name, 0) + 1
        return self.scene.add(thing, float(px), float(py), float(pz), parent.turn + turn)

    def hung(self, thing: Thing, x: float | None = None, z: float | None = None) -> Placed:
        """From the ceiling."""
        x = self.near(-0.2, 0.2) * self.width if x is None else x
        z = -self.depth * self.near(0.45, 0.65) if z is None else z
        self.made[thing.name] = self.made.get(thing.name, 0) + 1
        return self.scene.add(thing, x, self.height, z, 0.0)

    # ------------------------------------------------------------ shell

    def _surface(self, name: str, role: str, texture: str) -> Material:
        kit = Kit(self.rng, self.palette)
        item = self.spec.find(name)
        texture = "plain" if item and item.colours and not item.material and texture in ("brick", "stone") else texture
        base = kit.of(role, texture)
        if item is None:
            if texture in ("stripes", "motif", "checks", "tiles"):
                base = Material(
                    base.colour,
                    texture,
                    shade(base.colour, self.pick(0.86, 0.8, 1.35)),
                    PERIODS[texture],
                    0.0,
                    base.seed,
                )
            return base
        return asked_material(item.colour, item.material, base)

    def shell(self, wall_texture: str | None = None, floor_texture: str | None = None) -> None:
        """Floor, ceiling, three walls, skirting."""
        w, d, h = self.width, self.depth, self.height
        run = d + FRONT
        floor = Thing("floor", (w, 0, run)).add(
            slab(w, run),
            self._surface("floor", "floor", floor_texture or self.palette.floor_texture),
            0,
            0,
            FRONT - run / 2,
        )
        top = Thing("ceiling", (w, 0, run)).add(
            slab(w, run, up=False), self._surface("ceiling", "ceiling", "plain"), 0, h, FRONT - run / 2
        )
        paint = self._surface("wall", "wall", wall_texture or self.palette.wall_texture)
        walls = Thing("wall", (w, h, run))
        other = paint
        if self.spec.find("wall") is None and self.chance(0.3):  # a feature wall
            other = Material(shade(paint.colour, self.pick(1.35, 0.8, 1.5)))
        walls.add(panel(w, h, unit_uv=False), paint, 0, 0, -d)
        for sign in (-1, 1):
            side = panel(run, h, unit_uv=False)
            matrix = rotation("y", -90.0 * sign)
            side = side._replace(vertices=side.vertices @ matrix.T, normals=side.normals @ matrix.T)
            walls.parts.append((move(side, sign * w / 2, 0, FRONT - run / 2), other))
            skirting = (
                Material((236.0, 234.0, 228.0)) if max(paint.colour) < 225 else Material(shade(paint.colour, 0.85))
            )
            walls.add(box(0.02, 0.09, run), skirting, sign * (w / 2 - 0.01), 0, FRONT - run / 2)
        walls.add(box(w, 0.09, 0.02), skirting, 0, 0, -d + 0.01)
        for thing in (floor, top, walls):
            self.scene.add(thing, 0, 0, 0)

    def fill_light(self) -> None:
        """A soft light behind the camera: the rest of the house, as it were.

        It stands low, so that sunlight passes over it. A lamp can be sampled; an environment seen
        through the open front would be far noisier.
        """
        width, tall = self.width * 0.9, 0.5 * self.height
        quad = rotate(panel(width, tall), "y", 180)
        quad = move(quad, self.near(-0.1, 0.1) * self.width, 0.15 * self.height, FRONT - 0.1)
        strength = self.scene.mood.ambient * self.near(0.8, 1.25) * self.height * 1.1
        self.scene.hidden = [(quad, Material((255.0, 255.0, 255.0), emission=strength, fixed=True))]

    def sun(self, direction: tuple[float, float, float] | None = None) -> None:
        """Sunlight through the open front, if the mood has any."""
        side = self.pick(-1, 1)
        self.scene.sun_direction = direction or (side * self.near(0.35, 0.9), -self.near(0.35, 0.65), -1.0)

    # ------------------------------------------------------------ windows, rugs, fillings

    def window_thing(self, width: float, height: float, frame: RGB | None = None) -> Thing:
        mood = self.scene.mood
        kit = Kit(self.rng, self.palette)
        colour = frame or (236.0, 234.0, 228.0)
        item = self.spec.find("window")
        frame_material = asked_material(item.colour, item.material, Material(colour)) if item else Material(colour)
        thing = Thing("window", (width + 0.14, height + 0.14, 0.08), primary=frame_material)
        land = mood.land if self.chance(0.7) else shade(mood.sky, 0.45)
        pane = Material(mood.sky, "view", land, 1.0, mood.window, int(self.rng.integers(1 << 30)), True)
        thing.add(panel(width, height), pane, 0, 0.07, 0.02)
        for sx in (-1, 1):
            thing.add(box(0.07, height + 0.14, 0.08), frame_material, sx * (width / 2 + 0.035), 0, 0.04)
        bars = kit.pick((0,), (-0.166, 0.166), (0,), ()) if width < 2.2 else (-0.25, 0, 0.25)
        for b in bars:
            thing.add(box(0.04, height, 0.06), frame_material, b * width, 0.07, 0.03)
        for y in (0.0, height + 0.07):
            thing.add(box(width + 0.14, 0.07, 0.1), frame_material, 0, y, 0.05)
        if kit.chance(0.5):
            thing.add(box(width, 0.035, 0.05), frame_material, 0, height * kit.pick(0.5, 0.68), 0.03)
        return thing

    def window(
        self,
        wall: str,
        at: float | None = None,
        width: float | None = None,
        height: float | None = None,
        sill: float | None = None,
        dress: bool = True,
    ) -> Placed | None:
        """A window with, mostly, curtains or a blind."""
        item = self.spec.find("window")
        factor = item.size if item else 1.0
        w = (width or self.near(1.0, 1.8)) * factor
        h = min((height or self.near(1.1, 1.45)) * min(factor, 1.25), self.height - 0.7)
        sill = min(self.near(0.75, 1.0) if sill is None else sill, self.height - h - 0.35)
        thing = self.window_thing(w, h)
        curtains = self.wanted("curtain", 1, 0.75) if dress else []
        blinds = [] if curtains or not dress else self.wanted("blind", 1, 0.25)
        if curtains:
            self._add_curtains(thing, w, h, sill, curtains[0])
            thing.size = (w + 0.75, h + 0.3, 0.16)
        placed = self.against(thing, wall, at, y=sill)
        if placed is not None and blinds:
            blind = self.make("blind", blinds[0])
            blind.parts = [(scale(m, w, h * 0.8, 1.0), mat) for m, mat in blind.parts]
            self.made["blind"] = self.made.get("blind", 0) + 1
            px, py, pz = placed.world(0, h * 0.48, 0.06)
            self.scene.add(blind, float(px), float(py), float(pz), placed.turn)
        return placed

    def _add_curtains(self, thing: Thing, w: float, h: float, sill: float, wish: Wish) -> None:
        long = self.chance(0.65)
        drop = h + 0.25 + (sill - 0.04 if long else 0.12)
        cloth_width = self.near(0.32, 0.5)
        pair = self.make("curtain", wish)
        mesh, cloth = pair.parts[0]
        for sx in (-1, 1):
            panel_ = Thing("curtain", (cloth_width, drop, 0.12), primary=cloth)
            panel_.add(scale(mesh, cloth_width, drop, 1.0), cloth)
            thing.put(panel_, sx * (w / 2 + 0.2), h + 0.22 - drop, 0.09)
        thing.add(box(w + 0.9, 0.035, 0.035), Material(self.palette.metal), 0, h + 0.22, 0.14)

    def rug(self, x: float, z: float, w: float, d: float, turn: float = 0.0, odds: float = 0.7) -> Placed | None:
        wishes = self.wanted("rug", 1, odds)
        if not wishes:
            return None
        ask, index = wishes[0]
        kit = Kit(self.rng, self.palette, ask, index)
        factor = ask.size if ask else 1.0
        cloth = kit.main(
            kit.pick("accent", "accent2", "fabric", "fabric2"),
            kit.pick("persian", "border", "border", "stripes", "carpet"),
            1.0,
        )
        whole = cloth.texture in ("persian", "border")
        if whole and cloth.second is None:
            cloth = Material(cloth.colour, cloth.texture, kit.colour("fabric2"), 1.0, 0.0, cloth.seed)
        w, d = w * factor, d * factor
        thing = Thing("rug", (w, 0.02, d), primary=cloth)
        top = slab(w, d)
        if whole:
            top = top._replace(uv=(top.uv - top.uv.min(0)) / (top.uv.max(0) - top.uv.min(0)))
        thing.add(move(top, 0, 0.021, d / 2), cloth).add(
            box(w, 0.02, d), Material(shade(cloth.colour, 0.8)), 0, 0, d / 2
        )
        return self.put(thing, x, z, turn, solid=False)

    def trinket(
        self, parent: Placed, spot: int = 0, names: tuple[str, ...] = ("vase", "book", "plant", "flower", "bottle")
    ) -> None:
        """A small thing on top; the named ones first."""
        named = [n for n in names if self.named(n) and self.made.get(n, 0) < len(self.wanted(n))]
        name = named[0] if named else self.pick(*names)
        if self.spec.find(name) and not self.named(name):
            return
        self.on(parent, self.make(name, maker=small_plant if name == "plant" else None), spot)
