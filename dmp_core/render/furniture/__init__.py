"""Makers of furniture: `maker(kit) -> Thing`, one function an object, by name in FURNITURE.

What may live here: geometry and colours of single objects. Where they stand is the rooms' business.
"""

from __future__ import annotations

from dmp_core.render.furniture.appliances import (
    bathtub,
    hood,
    microwave,
    refrigerator,
    shower,
    sink,
    stove,
    toilet,
    towel,
    washer,
)
from dmp_core.render.furniture.beds import bed, blanket, cushion, dresser, nightstand, pillow, wardrobe
from dmp_core.render.furniture.fixtures import (
    blind,
    ceiling_light,
    chandelier,
    clock,
    column,
    curtain,
    door,
    fireplace,
    flag,
    grandstand,
    mirror,
    painting,
    poster,
    radiator,
    railing,
    screen,
    signboard,
    stage,
    stairs,
    swimming_pool,
    whiteboard,
)
from dmp_core.render.furniture.seats import (
    armchair,
    bench,
    chair,
    ottoman,
    seat,
    sofa,
    stool,
    swivel_chair,
)
from dmp_core.render.furniture.tables import (
    bar,
    bookcase,
    cabinet,
    coffee_table,
    conveyer_belt,
    counter,
    countertop,
    desk,
    kitchen_island,
    pool_table,
    shelf,
    table,
)
from dmp_core.render.furniture.trinkets import (
    bag,
    ball,
    barrel,
    basket,
    book,
    bottle,
    box_thing,
    computer,
    flower,
    food,
    glass,
    ladder,
    lamp,
    monitor,
    plant,
    plate,
    plaything,
    pot,
    sculpture,
    tank,
    television,
    vase,
)
from dmp_core.render.kit import Maker

FURNITURE: dict[str, Maker] = {
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
