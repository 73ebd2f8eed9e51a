"""Answers that outlive a killed run: what a language model has written is not asked for again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmp_core.prompts.base import CaptionGenerator


class ResumableGenerator:
    """A generator whose answers are kept in a file, one line a call, and found there when the same is asked again.

    A run that was killed and starts over goes through the same calls, so its result is the one
    that it would have come to. Answers of another generator are not used: a vLLM that has been
    installed since finds nothing of what transformers wrote.
    """

    def __init__(self, generator: CaptionGenerator, path: Path) -> None:
        self.name = generator.name
        self._generator, self._path = generator, path
        self._kept = _read(path)

    def generate(self, keywords: Sequence[str], template: str, seeds: Sequence[int]) -> list[str]:
        """Raw completions, one a keyword; see `CaptionGenerator`."""
        asked = json.dumps([self.name, list(keywords), template, list(seeds)])
        key = hashlib.sha256(asked.encode()).hexdigest()
        if key not in self._kept:
            texts = self._generator.generate(keywords, template, seeds)
            with self._path.open("a", encoding="utf-8") as stream:
                # The line break comes first: it also ends a line that a killed run left half written.
                stream.write("\n" + json.dumps({"asked": key, "texts": texts}))
            self._kept[key] = texts
        return self._kept[key]


def _read(path: Path) -> dict[str, list[str]]:
    """Key → texts of every whole line; half written ones are asked for again."""
    kept: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            record: dict[str, Any] = json.loads(line)
            kept[record["asked"]] = record["texts"]
        except (ValueError, KeyError, TypeError):
            continue
    return kept
