"""Fast and bounded parsing of YAML."""

from __future__ import annotations

from typing import Any

import yaml

DEEPEST = 40
"""Levels of nesting; settings have fewer than ten."""


def load_yaml(text: str | bytes) -> Any:
    """Plain values of YAML, parsed by libyaml where PyYAML was built with it: ten times as fast.

    Raises what PyYAML raises, and YAMLError for deep nesting, at which libyaml's binding overflows the stack.
    """
    loader, depth = getattr(yaml, "CSafeLoader", yaml.SafeLoader), 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"nested more than {DEEPEST} levels deep")
    return yaml.load(text, loader)
