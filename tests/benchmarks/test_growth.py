"""The growth benchmark runs, and counts what it says, at twenty samples."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from benchmarks.growth import PARTS, STAGES, Grown, draw, in_this_process, rows, settings
from dmp_core.stages import find, plan
from dmp_core.store import Workspace
from dmp_core.synthesis.sources import SOURCES


def test_the_parts_make_and_score_a_dataset(tmp_path):
    grown, before = Grown(20), dict(SOURCES)
    for part in ("dataset", "evaluation", "rerun", "import"):
        place = tmp_path / ("import" if part == "import" else "dataset")
        place.mkdir(exist_ok=True)
        answer = in_this_process(part, 20, place)
        grown.seconds |= answer["seconds"]
        grown.memory[part] = answer["memory"]
    assert before == SOURCES
    assert all(seconds > 0 for seconds in grown.seconds.values())
    made = find(plan(settings(20)), "labels/train-depth").artefact(Workspace(tmp_path / "dataset")).published()
    assert made.samples == 20
    (imported,) = (tmp_path / "import" / "w" / "images").iterdir()
    assert (imported / "manifest.json").is_file()
    named = {line[0].partition(":")[0].removesuffix(", s") for line in rows([grown])}
    assert named == {*STAGES, "plan", *PARTS} - {"prefect"}
    draw([grown, Grown(40, grown.seconds, grown.memory)], tmp_path / "growth.svg")
    ET.parse(tmp_path / "growth.svg")
