"""Keyword lists: the shipped ones, and errors for bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmp_core.errors import InputError
from dmp_core.keywords.english import has_word
from dmp_core.keywords.meaning import meaning_of
from dmp_core.prompts import read_keywords, readable_keyword
from dmp_core.prompts.keywords import keyword_files, split_keywords
from dmp_core.prompts.words import vocabulary_words


@pytest.mark.parametrize(
    ("keyword", "shown"),
    [
        ("airport_terminal", "airport terminal"),
        ("athletic_field/indoor", "indoor athletic field"),
        ("arena/hockey", "hockey arena"),
        ("bakery/kitchen", "bakery kitchen"),
        ("car_interior/backseat", "car interior backseat"),
        ("cloakroom/room", "cloakroom"),
        ("elevator/freight_elevator", "freight elevator"),
        ("wine_cellar/bottle_storage", "wine cellar bottle storage"),
        ("a cyberpunk street at night, neon", "a cyberpunk street at night, neon"),
        ("black/white photo of a room", "black/white photo of a room"),
        ("  bedroom ", "bedroom"),
    ],
)
def test_readable_keyword(keyword: str, shown: str) -> None:
    assert readable_keyword(keyword) == shown


def test_the_sun_list_has_409_names_that_read_as_words() -> None:
    names = read_keywords("sun_indoor_409.txt")
    shown = [readable_keyword(name) for name in names]
    assert len(set(names)) == 409
    assert all(name.replace(" ", "").isalpha() for name in shown)
    assert len(set(shown)) >= 405


def test_shipped_lists_cover_styles_places_and_abstract_things() -> None:
    arbitrary, styles = read_keywords("arbitrary.txt"), read_keywords("styles.txt")
    assert 50 <= len(arbitrary) <= 80
    places = {meaning_of(keyword).family.phrase for keyword in arbitrary}
    assert {"street", "still life", "living room", "mountains", "beach", "garden"} <= places
    assert all(meaning_of(keyword).known for keyword in arbitrary)
    assert len(styles) >= 20
    for keyword in styles:
        assert meaning_of(keyword).family.name == "bedroom", keyword
        assert any(has_word(keyword, style) for style in vocabulary_words("styles")), keyword


def test_comments_blanks_and_repeats_are_skipped_and_paths_work(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("# header\n\n  attic \nkitchen\nattic\n\t\n#x\na  red\troom\n")
    assert read_keywords(path) == ["attic", "kitchen", "a red room"]
    assert split_keywords("train", [], str(path)) == ["attic", "kitchen", "a red room"]


@pytest.mark.parametrize("content", [b"", b"# only a comment\n\n", b"\xff\xfe\x00ba", b"caf\xe9", b"kit\0chen\n"])
def test_useless_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.txt: no"):
        read_keywords(path)


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_are_read_as_their_writers_saved_them(tmp_path: Path, coding: str, end: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(f"# my rooms{end}kitchen{end}Büro{end}".encode(coding))
    assert read_keywords(path) == ["kitchen", "Büro"]


@pytest.mark.parametrize("source", ["/dev/zero", "a\0b", "x" * 5000])
def test_a_source_that_is_no_file_is_one_error(source: str) -> None:
    with pytest.raises(InputError, match="not found"):
        read_keywords(source)


@pytest.mark.parametrize("source", ["sun_409.txt", "no/such/place.txt", ".", "no/such/sun_indoor_409.txt"])
def test_missing_files_are_named_with_the_known_lists(source: str) -> None:
    with pytest.raises(InputError) as caught:
        read_keywords(source)
    assert source in str(caught.value)
    assert all(name in str(caught.value) for name in keyword_files())


def test_blank_keywords_name_their_split() -> None:
    with pytest.raises(InputError, match=r"splits\.train\.keywords"):
        split_keywords("train", ["bedroom", "  "], None)
