"""Times and sizes in a table, from invented results."""

from __future__ import annotations

import pandas as pd

from dmp_core.experiments.costs import markdown
from dmp_core.experiments.planning import plan_experiment
from dmp_core.experiments.settings import load_experiment


def test_a_row_for_each_variant_that_ran():
    shown = plan_experiment(load_experiment("compare"), "smoke", modalities=["normal"])
    names = ["variant", "train_seconds", "trainable_parameters", "steps", "seconds"]
    rows = [("dmp", 30.0, 2_000_000, 1, 0.010), ("dmp", 90.0, 2_000_000, 1, 0.020), ("ip2p_hard", None, None, 20, 0.5)]
    lines = markdown("T", shown, pd.DataFrame(rows, columns=names)).splitlines()
    assert lines[0] == "**T**"
    assert lines[4:] == [
        "| InstructPix2Pix (hard) | 0 |  |  | 20 | 500 |",
        "| DMP | 6 | 1.0 | 2,000,000 | 1 | 15 |",  # smoke: 3 steps of 2
    ]
