"""The notebook's cells run, one after the other, as in a kernel."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "mini.ipynb"


@pytest.mark.e2e
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells)  # made by whoever runs it
    plt.close("all")  # figures of other tests
    scope: dict[str, object] = {"__name__": "notebook"}
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        exec(compile("".join(cell["source"]), cell["id"], "exec"), scope)
    assert set(scope["predicted"]) == {"normal", "depth", "segmentation", "albedo", "shading"}
    assert len(plt.get_fignums()) == 3
    plt.close("all")
