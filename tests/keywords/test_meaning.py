"""What a keyword means: the same for captions and scenes, and never indoors for outdoors or the other way round.

`data/plausible_keywords.csv` was written by hand, without asking the code: `seen` says from where (`things` are neither
rooms nor places), `families` which families are right; none named: any that is seen so.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dmp_core.keywords import former as former_families
from dmp_core.keywords.english import singular
from dmp_core.keywords.former import means_the_same
from dmp_core.keywords.meaning import families, meaning_of
from dmp_core.prompts import read_keywords, readable_keyword
from dmp_core.prompts.grammar import GrammarGenerator
from dmp_core.prompts.keywords import keyword_files
from dmp_core.render import build_scene, read_prompt

with (Path(__file__).parents[1] / "data" / "plausible_keywords.csv").open(encoding="utf-8", newline="") as _file:
    ROWS = [(row["keyword"], row["seen"], row["families"].split("|")) for row in csv.DictReader(_file)]
SHIPPED = [keyword for name in ("sun_indoor_409.txt", "arbitrary.txt", "styles.txt") for keyword in read_keywords(name)]
INDOOR_WORDS = re.compile(r"\b(walls?|floor|interior of|ceiling)\b", re.IGNORECASE)


def seen(keyword: str) -> str:
    family = meaning_of(keyword).family
    return "things" if family.abstract else "outdoors" if family.outdoor else "indoors"


def test_the_list_is_long_and_not_ours() -> None:
    assert len(ROWS) > 2000
    assert {keyword for keyword, _, _ in ROWS}.isdisjoint(SHIPPED)


def test_nothing_indoors_is_drawn_outdoors_and_nothing_outdoors_as_a_room() -> None:
    assert [(keyword, seen(keyword)) for keyword, expected, _ in ROWS if seen(keyword) != expected] == []


def test_plausible_keywords_mean_the_right_family() -> None:
    wrong = [(k, meaning_of(k).family.name) for k, _, right in ROWS if right != [""]]
    expected = {k: right for k, _, right in ROWS}
    assert [(k, name, expected[k]) for k, name in wrong if name not in expected[k]] == []


def test_captions_and_scenes_of_plausible_keywords_agree() -> None:
    grammar = GrammarGenerator()
    for number, (keyword, expected, _) in enumerate(ROWS):
        caption = grammar.caption(keyword, random.Random(number))
        drawn = families()[read_prompt(caption, keyword).family]
        assert drawn == meaning_of(keyword).family, keyword
        assert (drawn.outdoor, drawn.abstract) == (expected == "outdoors", expected == "things"), keyword
        rest = caption.lower().replace(readable_keyword(keyword).lower(), "")
        assert expected == "indoors" or not INDOOR_WORDS.search(rest), caption
        assert (
            expected != "indoors"
            or not re.search(r"\b(sky|sea|tree|mountain)s?\b(?! blue)", rest)
            or ("overcast sky" in rest or "sky blue" in rest)
        ), caption


@pytest.mark.parametrize("row", ROWS[::60], ids=lambda row: row[0])
def test_scenes_are_built_as_the_keyword_says(row: tuple[str, str, list[str]]) -> None:
    keyword, expected, _ = row
    caption = GrammarGenerator().caption(keyword, random.Random(7))
    scene = build_scene(read_prompt(caption, keyword), 7)
    assert scene.outdoor == (expected != "indoors")


@pytest.mark.parametrize(
    ("keyword", "family"),
    [("kids room", "bedroom"), ("home gym", "gym"), ("food court", "dining_room"), ("train station", "lobby"),
     ("bowling alley", "gym"), ("a cat in a kitchen", "kitchen"), ("kitchen by the sea", "kitchen"),
     ("room with a bathtub", "bathroom"), ("castle interior", "hall"), ("castle", "street"), ("KidsRoom", "bedroom"),
     ("a house by the sea", "coast"), ("church/outdoor", "street"), ("indoor church", "hall"), ("kichen", "kitchen"),
     ("horses in a stable", "workshop"),
     ("zorblax", "living_room"), ("a zorblax of gold", "still_life"), ("", "living_room")],
)  # fmt: skip
def test_families(keyword: str, family: str) -> None:
    assert meaning_of(keyword).family.name == family


@pytest.mark.parametrize(
    ("keyword", "kind"),
    [("village church interior", "pews"), ("Kapelle", "pews"), ("movie_theater/indoor", "seats"), ("theatre", "seats"),
     ("opera house", "seats"), ("second-hand bookshop", "books"), ("librairie", "books"), ("shoe shop", None),
     ("museum", None), ("arena/hockey", None), ("bookbinder's kitchen", None)],
)  # fmt: skip
def test_rows_and_shelves_are_what_the_words_say(keyword: str, kind: str | None) -> None:
    assert meaning_of(keyword).kind == kind


@given(st.text(max_size=60))
@example("²")
@example("\ud800")
@example("/")
@example("of of of")
@example("x" * 5000)
def test_every_text_means_something(text: str) -> None:
    assert meaning_of(text).family.name in families()


def test_every_name_of_the_lists_means_what_is_written_there() -> None:
    for family in families().values():
        for keyword in family.keywords:
            assert meaning_of(keyword).family is family
            assert meaning_of(keyword).kind == former_families._arranged(keyword, family.name), keyword
    assert set(keyword_files()) == {"sun_indoor_409.txt", "arbitrary.txt", "styles.txt"}


def test_shipped_keywords_keep_the_captions_and_families_that_fingerprints_stand_for() -> None:
    grammar, found = GrammarGenerator(), []
    for keyword in dict.fromkeys(SHIPPED):
        captions = [grammar.caption(keyword, random.Random(seed)) for seed in range(5)]
        found.append([keyword, captions, [read_prompt(caption, keyword).family for caption in captions]])
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
    assert digest == "e53aea13603e62ce35510a0c862803c03b8bfce4fb837b0b81ae4d738b506326"  # of version 1 of the rules


def test_what_means_the_same_as_before_is_known() -> None:
    free_text = [keyword for keyword in SHIPPED if " " in keyword]
    assert len(free_text) > 80
    assert all(map(former_families._decided_alike, free_text))
    assert all(map(means_the_same, SHIPPED))
    assert all(map(means_the_same, ["kitchen for giants", "a cat in a kitchen", "church", "Bedroom"]))
    assert not any(
        map(means_the_same, ["kids room", "bowling alley", "concert hall", "vase", "zorblax", "train station"])
    )


def test_words_are_read_once_and_without_heavy_imports() -> None:
    heavy = "('torch', 'mitsuba', 'dmp_core.prompts', 'dmp_core.synthesis', 'dmp_core.stages')"
    code = f"import sys, dmp_core.keywords.meaning; print([m for m in sys.modules if m.startswith({heavy})])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_singulars() -> None:
    words = "kitchens shelves people theatre harbour boxes glass bus studies churches"
    assert " ".join(map(singular, words.split())) == "kitchen shelf person theater harbor box glass bus study church"
