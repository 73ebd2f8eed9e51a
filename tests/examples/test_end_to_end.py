"""The example runs, and what it trains beats the best constant."""

from __future__ import annotations

import pytest

from examples.end_to_end import main


@pytest.mark.e2e
def test_example_learns_albedo(tmp_path):
    pytest.importorskip("mitsuba")
    means = main(tmp_path, images=16, steps=40)
    assert means["DMP"] < means["constant"]
    assert (tmp_path / "adapter" / "dmp.json").is_file()
