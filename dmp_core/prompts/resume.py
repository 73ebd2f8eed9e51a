"""Completions that survive a killed run: a language model's texts are not generated again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmp_core.prompts.base import CaptionGenerator
from dmp_core.prompts.vary import VaryConfig


class ResumableGenerator:
    """A generator whose completions are kept in a file, one line per call, and reused for equal calls of a later run.

    A killed run that starts over makes the same calls, so its result
    does not change. Completions of another generator are not used: a vLLM that has been
    installed since does not reuse those of transformers.
    """

    def __init__(self, generator: CaptionGenerator, path: Path) -> None:
        self.name = generator.name
        self._generator, self._path = generator, path
        self._kept = _read(path)

    def generate(
        self, keywords: Sequence[str], template: str, seeds: Sequence[int], vary: VaryConfig | None = None
    ) -> list[str]:
        """Raw completions, one per keyword; see `CaptionGenerator`."""
        call = json.dumps([self.name, list(keywords), template, list(seeds)])
        weighed = {"vary": vary} if vary else {}
        call += vary.model_dump_json() if vary else ""
        key = hashlib.sha256(call.encode()).hexdigest()
        if key in self._kept:
            return self._kept[key]
        texts = self._generator.generate(keywords, template, seeds, **weighed)
        with self._path.open("a", encoding="utf-8") as stream:
            # The line break comes first: it also ends a line that a killed run left incomplete.
            stream.write("\n" + json.dumps({"asked": key, "texts": texts}))
        return texts


def _read(path: Path) -> dict[str, list[str]]:
    """Key → texts of every whole line; incomplete ones are generated again."""
    kept: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            record: dict[str, Any] = json.loads(line)
            kept[record["asked"]] = record["texts"]
        except (ValueError, KeyError, TypeError):
            continue
    return kept
