"""The words that captions draw, by trait; all are words that the renderer draws."""

from __future__ import annotations

from functools import cache

from dmp_core.keywords.meaning import vocabulary_file


def words_of(text: str) -> list[str]:
    """`oak, light green` → ["oak", "light green"]."""
    return [word.strip() for word in text.split(",")]


def each(names: str, values: list[str]) -> dict[str, list[str]]:
    return {name: values for name in words_of(names)}


# What may be made of what; names of objects and materials as in vocabulary.yaml.
_FABRIC = words_of("velvet, linen, cotton, striped, plaid, floral, patterned, checkered, knitted, woven")
_UPHOLSTERY = words_of("velvet, leather, linen, striped, plaid, floral, woven")
_WOOD = words_of("wooden, oak, pine, walnut, mahogany, bamboo, painted")
_HARD = words_of("wooden, oak, walnut, mahogany, marble, metal, glass, rattan, painted")
_METAL = words_of("metal, steel, brass, iron")
SURFACES = {
    **each("wall", words_of("brick, stone, concrete, painted, wallpapered, striped, floral, patterned, tiled")),
    **each("floor", words_of("wooden, oak, pine, walnut, parquet, hardwood, marble, stone, concrete, tiled, carpeted")),
}
MATERIALS = {
    **each("pillow, blanket, curtain, cushion, towel", _FABRIC),
    **each("bed, sofa, armchair, chair, seat, ottoman, bench", _UPHOLSTERY),
    **each("nightstand, dresser, wardrobe, bookcase, shelf, cabinet, desk, door, box, barrel, fence", _WOOD),
    **each("table, coffee table, counter, bar, stool, kitchen island, stairs", _HARD),
    **each(
        "lamp, light, chandelier, stove, sink, refrigerator, hood, pot, railing, radiator, streetlight, tank", _METAL
    ),
    **each("column, sculpture, building, house, tower", words_of("marble, stone, brick, concrete")),
    **each("basket, plaything", words_of("wicker, rattan, woven")),
    **each("vase, bottle, glass, ball", words_of("glass, metal, marble")),
    **each("rug", words_of("Persian, striped, woven, patterned, checkered, knitted")),
}
LIGHT_ADJECTIVES = words_of("bright, sunny, sunlit, airy, warm, cozy, candlelit, dim, dimly lit, moody, moonlit")
LIGHT_PHRASES = [
    "in bright daylight",
    "in soft morning light",
    "in warm afternoon light",
    "in warm lamplight",
    "lit by candlelight",
    "at sunset",
    "at golden hour",
    "at dusk",
    "in the evening",
    "at night",
    "by moonlight",
    "under an overcast sky",
    "in cool light",
    "with natural light",
]
DECOR = words_of(
    "modern, contemporary, minimalist, Scandinavian, rustic, industrial, classic, traditional, Victorian, elegant, "
    "luxurious, bohemian, colorful, Japanese, retro, coastal, tropical"
)
LISTS = {1: "{main}", 2: "{list2}", 3: "{list3}"}
"""Number of different objects → slot."""


@cache
def vocabulary_words(group: str) -> list[str]:
    """The words of one group of `data_manifests/vocabulary.yaml` (colours, light, styles), as it has them."""
    return list(vocabulary_file()[group])


@cache
def traits() -> dict[str, list[str]]:
    """What captions draw, by the fields of `VaryConfig`."""
    materials = {word for words in (*SURFACES.values(), *MATERIALS.values()) for word in words}
    return {
        "colour": vocabulary_words("colours"),
        "material": sorted(materials),
        "light": sorted({*LIGHT_PHRASES, *LIGHT_ADJECTIVES}),
        "style": sorted(DECOR),
        "objects": [str(number) for number in LISTS],
    }
