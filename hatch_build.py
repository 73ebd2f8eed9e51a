"""How a wheel differs from a checkout: `flows` and `tasks`, names that others use as well, are in `dmp_pipeline`."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOMS = ("flows", "tasks")
PLACES = re.compile(r"((?:^|\s)(?:from|import|-m|-) |entrypoint: \")(?=(?:flows|tasks)\b)", re.MULTILINE)
"""What precedes their names in imports, commands and `prefect.yaml`."""


class MovedRooms(BuildHookInterface):  # type: ignore[type-arg]
    """Moves them; an editable install stays as the checkout is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the moved files, and let the entry point name the moved runner."""
        root = Path(self.root)
        if version == "editable" or not (root / "flows" / "__init__.py").is_file():
            return
        self.folder = tempfile.TemporaryDirectory()
        for file in (root / "prefect.yaml", *(path for room in ROOMS for path in (root / room).glob("*.py"))):
            target = Path(self.folder.name) / file.relative_to(root)
            target.parent.mkdir(exist_ok=True)
            target.write_text(moved(file.read_text()))
        (Path(self.folder.name) / "__init__.py").write_text('"""The flows and tasks of DMP Pipeline."""\n')
        build_data["force_include"][self.folder.name] = "dmp_pipeline"
        runners = self.metadata.core.entry_points["dmp.runners"]
        runners["prefect"] = f"dmp_pipeline.{runners['prefect']}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copies."""
        if hasattr(self, "folder"):
            self.folder.cleanup()


def moved(text: str) -> str:
    """The text with the names of the moved modules; an entry point of `prefect.yaml` is a path."""
    return PLACES.sub(lambda found: f"{found[1]}dmp_pipeline{'/' if found[1].endswith(chr(34)) else '.'}", text)
