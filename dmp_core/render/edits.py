"""Pictures before and after one change that an instruction names; all else is the same, exactly.

Both are renders of one scene from one seed: the same camera, the same objects, the same exposure unless it is the
light that changes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from dmp_core.render.language import SceneSpec, read_prompt
from dmp_core.render.materials import Material
from dmp_core.render.render import Rendered, build_scene, render_scene, restyled
from dmp_core.render.scene import Placed, Scene, draw_mood
from dmp_core.render.vocabulary import RGB, vocabulary

EditKind = Literal["recolour", "relight", "switch", "restyle", "add", "remove"]
KINDS: tuple[EditKind, ...] = get_args(EditKind)

_VISIBLE = 0.015  # least share of the picture that an edited object covers
_LAMP_VISIBLE = 0.003  # the same of a lamp: its light reaches further
_LEAST_CHANGE = 5.0  # mean change of the edited pixels, levels of 255: less is no edit
_COLOUR_STEP = 90.0  # least distance of the new colour from the old, display values
_SURFACES = ("wall", "floor", "ceiling")
_FIXED = ("window", "mirror", "painting", "poster", "television", "screen", "monitor", "computer")
"""What is not recoloured: their colour is that of a picture, not of a stuff."""
_LOOSE = (
    "painting", "poster", "mirror", "clock", "plant", "rug", "chair", "armchair", "pillow", "cushion", "blanket",
    "vase", "flower", "curtain", "blind", "stool", "bench", "ball", "basket", "box", "bag", "flag", "signboard",
    "towel", "person", "animal", "tree", "palm", "car", "rock", "boat", "tent", "fence", "barrel", "whiteboard",
)  # fmt: skip
"""What can go without leaving something in the air."""
_LIGHT_WORDS: dict[str, tuple[str, ...]] = {
    "day": ("make it a sunny day", "make the light bright"),
    "morning": ("make it morning",),
    "afternoon": ("make it afternoon",),
    "warm": ("make the light warm", "make it cozy"),
    "candle": ("make it candlelit",),
    "sunset": ("make it sunset",),
    "dusk": ("make it dusk", "make it evening"),
    "night": ("make it night", "make it dark"),
    "dim": ("make the light dim",),
    "moon": ("make it moonlit",),
    "overcast": ("make it overcast",),
    "cool": ("make the light cold",),
    "neon": ("make the light neon",),
    "lamps": ("make it lit by lamplight",),
}


@dataclass(frozen=True)
class EditedPair:
    """before, after: of one size; touched: (H, W) bool, the edited objects' pixels in either, all where light or
    style changed."""

    before: Rendered
    after: Rendered
    instruction: str
    kind: EditKind
    touched: np.ndarray


def render_edit(
    prompt: str,
    keyword: str,
    seed: int,
    kind: EditKind | None = None,
    *,
    resolution: int = 64,
    samples_per_pixel: int = 16,
    max_depth: int = 4,
) -> EditedPair:
    """Render what the prompt says, and the same after an edit.

    kind: None draws one. Where a scene has nothing to do it to (no lamp to switch off), another kind takes its place;
    restyling always works. The same arguments give the same pair.
    """
    rng = np.random.default_rng([int(seed) & 0xFFFFFFFFFFFF, zlib.crc32(prompt.encode("utf-8", "surrogatepass"))])
    editor = _Editor(prompt, keyword, seed, rng, (resolution, samples_per_pixel, max_depth))
    order: list[EditKind] = [KINDS[int(k)] for k in rng.permutation(len(KINDS))]
    for choice in ([kind] if kind else []) + order + ["restyle"]:
        pair = editor.apply(choice)
        if pair is not None:
            return pair
    raise AssertionError("restyling works on every scene")


class _Editor:
    """One scene, rendered once, and the ways to change it."""

    def __init__(
        self, prompt: str, keyword: str, seed: int, rng: np.random.Generator, quality: tuple[int, int, int]
    ) -> None:
        spec = read_prompt(prompt, keyword)
        # A stated light draws nothing from the scene's seed, so that another one leaves all else as it is.
        self.spec: SceneSpec = replace(spec, light=draw_mood(spec.light, rng)[0], style=None)
        self.seed, self.rng, self.quality = seed, rng, quality
        self.scene = build_scene(self.spec, seed)
        self.picture = render_scene(self.spec, self.scene, seed, *quality)

    def apply(self, kind: EditKind) -> EditedPair | None:
        edits: dict[EditKind, Callable[[], EditedPair | None]] = {
            "recolour": self._recolour,
            "relight": self._relight,
            "switch": self._switch,
            "restyle": self._restyle,
            "add": lambda: self._take_out("add"),
            "remove": lambda: self._take_out("remove"),
        }
        return edits[kind]()

    # ------------------------------------------------------------------------------- kinds
    def _recolour(self) -> EditedPair | None:
        name = self._choose(o for o in self.scene.objects if o.name not in _FIXED and _paint(o))
        if name is None:
            return None
        old = next(material.colour for o in self._named(name) for material in _paint(o))
        colours = {word: rgb for word, rgb in vocabulary().colours.items() if _distance(rgb, old) > _COLOUR_STEP}
        word = self._pick(list(colours))
        after = self._changed(name, lambda o: _painted(o, colours[word]))
        noun = _noun(name, len(self._named(name)))
        phrase = self._pick([f"make the {noun} {word}", f"paint the {noun} {word}", f"turn the {noun} {word}"])
        return self._pair("recolour", phrase, self.picture, self._render(after), name)

    def _relight(self) -> EditedPair | None:
        mood = self._pick([name for name in _LIGHT_WORDS if name != self.scene.mood_name])
        scene = build_scene(replace(self.spec, light=mood), self.seed)
        if [o.name for o in scene.objects] != [o.name for o in self.scene.objects]:
            return None
        after = render_scene(self.spec, scene, self.seed, *self.quality)
        return self._pair("relight", self._pick(_LIGHT_WORDS[mood]), self.picture, after, None)

    def _switch(self) -> EditedPair | None:
        name = self._choose((o for o in self.scene.objects if o.thing.lamp and _shines(o)), _LAMP_VISIBLE)
        if name is None:
            return None
        dark = self._render(self._changed(name, _switched_off))
        noun = _noun(name, len(self._named(name)))
        if self.rng.random() < 0.5:
            return self._pair("switch", f"turn the {noun} off", self.picture, dark, None)
        return self._pair("switch", f"turn the {noun} on", dark, self.picture, None)

    def _restyle(self) -> EditedPair | None:
        word = self._pick(list(vocabulary().styles))
        after = restyled(self.picture, vocabulary().styles[word], self.seed)
        phrase = self._pick([f"make it {word} style", f"turn it into {word}", f"make it look like {word}"])
        return self._pair("restyle", phrase, self.picture, after, None)

    def _take_out(self, kind: Literal["add", "remove"]) -> EditedPair | None:
        name = self._choose(o for o in self.scene.objects if o.name in _LOOSE and not _shines(o))
        if name is None:
            return None
        without = self._render(self._changed(name, lambda o: replace(o, parts=[], _bounds=None)))
        count = len(self._named(name))
        if kind == "remove":
            verb = self._pick(["remove", "take away"])
            return self._pair(kind, f"{verb} the {_noun(name, count)}", self.picture, without, name)
        article = "" if count > 1 else "an " if name[0] in "aeiou" else "a "
        return self._pair(kind, f"add {article}{_noun(name, count)}", without, self.picture, name)

    # ------------------------------------------------------------------------------- tools
    def _pick(self, options: list[str] | tuple[str, ...]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def _named(self, name: str) -> list[Placed]:
        return [o for o in self.scene.objects if o.name == name]

    def _choose(self, objects: Iterable[Placed], least: float = _VISIBLE) -> str | None:
        """The name of some of these objects that can be seen."""
        names = sorted({o.name for o in objects})
        seen = [n for n in names if self._mask(self.picture, n).mean() >= least]
        return self._pick(seen) if seen else None

    def _mask(self, picture: Rendered, name: str) -> np.ndarray:
        return np.isin(picture.instances, [o.instance for o in self._named(name)])

    def _changed(self, name: str, change: Callable[[Placed], Placed]) -> Scene:
        return replace(self.scene, objects=[change(o) if o.name == name else o for o in self.scene.objects])

    def _render(self, scene: Scene) -> Rendered:
        """With the first picture's exposure: a camera would not change it for a cushion."""
        return render_scene(self.spec, scene, self.seed, *self.quality, exposure=self.picture.info["exposure"])

    def _pair(
        self, kind: EditKind, instruction: str, before: Rendered, after: Rendered, name: str | None
    ) -> EditedPair | None:
        everywhere = np.ones(before.instances.shape, dtype=bool)
        touched = everywhere if name is None else self._mask(before, name) | self._mask(after, name)
        change = np.abs(before.rgb.astype(float) - after.rgb)[touched].mean()
        seen = change >= _LEAST_CHANGE or kind == "restyle"
        return EditedPair(before, after, instruction, kind, touched) if seen else None


def _paint(placed: Placed) -> list[Material]:
    """The materials that carry an object's colour: what the prompt's colour word would have changed."""
    if placed.name in _SURFACES and placed.parts:
        skirting = placed.parts[-1][1] if placed.name == "wall" else None
        return [material for _, material in placed.parts if material != skirting]
    primary = placed.thing.primary
    return [m for _, m in placed.parts if primary is not None and m.colour == primary.colour and m.emission == 0]


def _painted(placed: Placed, colour: RGB) -> Placed:
    paint = _paint(placed)
    parts = [(mesh, material.with_colour(colour) if material in paint else material) for mesh, material in placed.parts]
    return replace(placed, parts=parts)


def _shines(placed: Placed) -> bool:
    return any(material.emission > 0 for _, material in placed.parts)


def _switched_off(placed: Placed) -> Placed:
    return replace(placed, parts=[(mesh, replace(material, emission=0.0)) for mesh, material in placed.parts])


def _distance(a: RGB, b: RGB) -> float:
    return float(np.linalg.norm(np.subtract(a, b)))


def _noun(name: str, count: int) -> str:
    if count == 1 or name == "food":
        return name
    return "shelves" if name == "shelf" else name + ("es" if name.endswith(("x", "ch", "sh")) else "s")
