"""Ranks of invented scores compared with the paper's printed numbers."""

from __future__ import annotations

import pandas as pd

from dmp_core.experiments.order import markdown, rankings
from dmp_core.experiments.settings import load_experiment


def scores(**values: float) -> pd.DataFrame:
    rows = [
        (name, "depth", "in_domain", metric, value if metric == "abs_rel" else 1 - value)
        for name, value in values.items()
        for metric in ("abs_rel", "delta1")
    ]
    return pd.DataFrame(rows, columns=["variant", "task", "split", "metric", "value"])


def test_the_best_comes_first_whichever_way_the_metric_goes():
    variants = load_experiment("compare").variants
    # The paper's depth in domain (Table 1): REL SPADE 0.2132, DDIB 0.3087, DMP 0.1072; δ1 0.4961, 0.5130, 0.8861.
    rel, delta = rankings(["table1"], scores(dmp=0.3, spade=0.2, ddib=0.9, constant=0.1), variants)
    assert (rel.column.metric.name, delta.column.metric.name) == ("abs_rel", "delta1")
    assert rel.ours == delta.ours == ("SPADE", "DMP", "DDIB")
    assert (rel.paper, rel.alike) == (("DMP", "SPADE", "DDIB"), (2, 3))
    assert (delta.paper, delta.alike) == (("DMP", "DDIB", "SPADE"), (1, 3))
    found = [rel, delta]
    assert "| 1 | In-domain Depth REL ↓ | SPADE · DMP · DDIB | DMP · SPADE · DDIB | 2 of 3 |" in markdown("T", found)


def test_one_method_has_no_order():
    assert rankings(["table1", "table3"], scores(dmp=0.3), load_experiment("compare").variants) == []
