"""Both of PyYAML's parsers give the same values, and nothing that a file contains ends the process."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dmp_core.resources import manifest_root
from dmp_core.yaml import DEEPEST, load_yaml

MANIFESTS = sorted(manifest_root().rglob("*.yaml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_shipped_manifests_have_the_values_of_the_plain_parser(path: Path) -> None:
    assert load_yaml(path.read_bytes()) == yaml.load(path.read_text(encoding="utf-8"), yaml.SafeLoader)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 50_000, "- " * 100_000, "? " * 50_000])
def test_deep_nesting_is_an_error(text: str) -> None:
    """libyaml's binding by itself overflows the stack, which ends the process."""
    with pytest.raises(yaml.YAMLError, match=f"nested more than {DEEPEST} levels"):
        load_yaml(text)


def test_nesting_up_to_the_bound_is_read() -> None:
    assert load_yaml("[" * DEEPEST + "1" + "]" * DEEPEST)


def test_tags_of_python_objects_are_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        load_yaml("!!python/object/apply:os.getcwd []")
