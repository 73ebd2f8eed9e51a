"""Plots of error against a setting, from invented scores."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.experiments.figures import _truth, curve, save_plot
from dmp_core.experiments.planning import plan_experiment
from dmp_core.experiments.settings import CurveSpec, load_experiment


@pytest.fixture(scope="module")
def steps():
    """The variants of Figure 7 and a score for each: 30° less their number of steps."""
    experiment = load_experiment("ablate")
    shown = [v for v in plan_experiment(experiment, "smoke") if "figure7" in v.variant.feeds]
    rows = [
        (v.name, v.title, "normal", split, metric, value, value - 1, value + 1)
        for v in shown
        for value in [30.0 - v.config.sampling.num_steps + 100 * (v.name == "single")]
        for split, metric in (("in_domain", "angular_deg"), ("in_domain", "l1"), ("out_of_domain", "angular_deg"))
    ]
    rows.append(("constant", "constant", "normal", "in_domain", "angular_deg", 45.0, 44.0, 46.0))
    names = ["variant", "method", "task", "split", "metric", "value", "ci_low", "ci_high"]
    return experiment.outputs["figure7"], shown, pd.DataFrame(rows, columns=names)


def test_one_line_per_split_and_series_shows_every_variant_at_its_setting(steps):
    figure = curve(*steps)
    assert figure is not None
    (axes,) = figure.axes
    drawn = {container.get_label(): container.lines[0].get_xydata().tolist() for container in axes.containers}
    multiple = [[n, 30.0 - n] for n in (2, 3, 5, 10, 20)]
    assert drawn["In-domain, multiple steps"] == multiple == drawn["Out-of-domain, multiple steps"]
    assert drawn["In-domain, trained for a single step"] == [[1.0, 129.0]]
    assert any(list(line.get_ydata()) == [45.0, 45.0] for line in axes.lines)


def test_plots_are_the_same_bytes_each_time(steps, tmp_path):
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        assert save_plot(curve(*steps), folder, "figure7") == ["figure7.svg", "figure7.png"]
    for name in ("figure7.svg", "figure7.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_scores_no_plot(steps):
    assert curve(steps[0], steps[1], steps[2].iloc[:0]) is None


def test_all_images_means_the_presets_number():
    shown = [v for v in plan_experiment(load_experiment("ablate"), "mini-full") if "samples" in v.variant.feeds]
    scores = pd.DataFrame(
        [(v.name, v.title, "normal", "in_domain", "angular_deg", 1.0, 0.9, 1.1) for v in shown],
        columns=["variant", "method", "task", "split", "metric", "value", "ci_low", "ci_high"],
    )
    figure = curve(CurveSpec(title="t", x="train.samples", label="images"), shown, scores)
    assert figure is not None
    assert figure.axes[0].get_xticks().tolist() == [50, 100, 200, 500, 1000, 2000]


def test_variants_may_state_their_own_position(steps):
    _, shown, scores = steps
    placed = [
        replace(v, variant=v.variant.model_copy(update={"at": 7.0 - n, "series": ""})) for n, v in enumerate(shown)
    ]
    figure = curve(CurveSpec(title="t", x="at", label="priors"), placed[:3], scores)
    assert figure is not None
    assert figure.axes[0].get_xticks().tolist() == [5, 6, 7]
    with pytest.raises(InputError, match="at: None is not a number"):
        curve(CurveSpec(title="t", x="at", label="priors"), shown, scores)


def test_a_setting_without_a_number_is_rejected(steps):
    with pytest.raises(InputError, match=r"sampling.source: 'oracle' is not a number"):
        curve(CurveSpec(title="t", x="sampling.source", label="source"), steps[1], steps[2])


def test_pseudo_labels_are_shown_by_their_predictors_name():
    assert _truth(load_config("paper"), "depth") == "Depth (ZoeDepth)"
    assert _truth(load_config("smoke"), "depth") == "Depth"
