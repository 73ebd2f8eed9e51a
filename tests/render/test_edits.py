"""Before and after differ in what the instruction names, and in nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from dmp_core.render.edits import KINDS, EditedPair, render_edit

PROMPTS = (
    ("A bedroom with a red bed, two white pillows, a blue rug, an armchair and a large painting", "bedroom"),
    ("A living room with a grey sofa, a green plant, a chair and a floor lamp", "living_room"),
)
CHEAP = {"resolution": 32, "samples_per_pixel": 4, "max_depth": 2}


@pytest.fixture(scope="module")
def pairs() -> list[EditedPair]:
    return [
        render_edit(prompt, keyword, seed, kind, **CHEAP)
        for seed, (prompt, keyword) in enumerate(PROMPTS)
        for kind in KINDS
    ]


def change(pair: EditedPair) -> np.ndarray:
    return np.abs(pair.before.rgb.astype(float) - pair.after.rgb).mean(-1)


def test_every_kind_is_made(pairs):
    assert {pair.kind for pair in pairs} == set(KINDS)


@pytest.mark.parametrize("kind", ["recolour", "add", "remove"])
def test_only_the_named_object_changes(pairs, kind):
    """Shadows and light that it throws back aside: the rest changes by a small part of what the object does."""
    for pair in (p for p in pairs if p.kind == kind):
        inside, outside = change(pair)[pair.touched], change(pair)[~pair.touched]
        assert inside.mean() > 5
        assert np.median(outside) <= 2
        assert outside.mean() < 0.2 * inside.mean()


def test_geometry_stays_unless_something_is_added_or_removed(pairs):
    for pair in pairs:
        same = (pair.before.instances == pair.after.instances) & (np.abs(pair.before.depth - pair.after.depth) < 1e-5)
        if pair.kind in ("add", "remove"):
            assert same[~pair.touched].all()
            assert not same[pair.touched].all()
        else:
            assert same.all()


def test_instructions_say_what_was_done(pairs):
    words = {
        "recolour": ("make the", "paint the", "turn the"),
        "switch": ("turn the",),
        "add": ("add",),
        "remove": ("remove the", "take away the"),
        "relight": ("make",),
        "restyle": ("make it", "turn it into"),
    }
    for pair in pairs:
        assert pair.instruction.startswith(words[pair.kind])


def test_a_light_that_is_turned_off_makes_it_darker_and_on_brighter(pairs):
    for pair in (p for p in pairs if p.kind == "switch"):
        off, on = (pair.after, pair.before) if pair.instruction.endswith("off") else (pair.before, pair.after)
        assert off.rgb.mean() < on.rgb.mean()


def test_the_same_arguments_give_the_same_pair(pairs):
    prompt, keyword = PROMPTS[0]
    again = render_edit(prompt, keyword, 0, KINDS[0], **CHEAP)
    assert again.instruction == pairs[0].instruction
    assert np.array_equal(again.before.rgb, pairs[0].before.rgb)
    assert np.array_equal(again.after.rgb, pairs[0].after.rgb)
