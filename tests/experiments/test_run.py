"""A small comparison for real: two variants of DMP and another package's method over one workspace."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dmp_core.cli import app
from dmp_core.dataset.reading import column_array
from dmp_core.errors import InputError
from dmp_core.experiments import groups
from dmp_core.experiments.outputs import write_outputs
from dmp_core.experiments.planning import PlannedVariant, choose, plan_experiment, run_experiment
from dmp_core.experiments.settings import Experiment, GroupSpec, load_experiment
from dmp_core.methods.drit.algorithm import DritModel
from dmp_core.methods.registry import find_method, method_names
from dmp_core.methods.spade.algorithm import SpadeModel
from dmp_core.modalities import find_modality
from dmp_core.quality.tables import read_scores
from dmp_core.scoring.registry import CEILING, CONSTANT, MEAN_MAP
from dmp_core.stages import StageOutput, batches, execute
from dmp_core.store import Workspace, read_artefact
from docs.writing import results
from tests.packages import installed_package

PACKAGE = '''
from typing import Literal

import numpy as np

from dmp_core.methods.settings import MethodConfig

class Settings(MethodConfig):
    method: Literal["towards"] = "towards"
    z: float = 1.0

class Towards:
    """Every normal faces the viewer; counts its training pairs."""
    name, title, needs, settings = "towards", "Facing", "latents", Settings

    def fit(self, settings, problem, data, work, out, *, device, progress):
        pairs = data.latent_pairs(2, 0)
        assert len(pairs) == len(data)
        (out / "z.txt").write_text(str(settings.z))
        return {"task": problem.modality.name, "pairs": len(pairs)}

    def load(self, folder, problem, inference, *, device):
        normal = np.array([0.0, 0.0, float((folder / "z.txt").read_text())])
        return lambda images, keys: np.broadcast_to(normal, images.shape)
'''
RUN = ("spade", "drit", "sdedit", "ddib", "ip2p_hard", "ip2p_learned", "visii", "dmp", "dmp-random", "towards")


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory):
    """An installed package with an entry point for the method `towards`."""
    points = "[dmp.methods]\ntowards = towards_method:Towards\n"
    with installed_package(tmp_path_factory.mktemp("site"), "towards_method", PACKAGE, points):
        yield


@pytest.fixture(scope="module")
def experiment(installed: None) -> Experiment:
    """`compare` with a third party's method in it."""
    known = load_experiment("compare").model_dump()
    other = {"title": "Facing", "set": {"train": {"method": "towards", "samples": 3}}, "feeds": ["table1", "figure4"]}
    return Experiment.model_validate(known | {"variants": known["variants"] | {"towards": other}})


@pytest.fixture(scope="module")
def planned(experiment: Experiment) -> list[PlannedVariant]:
    return plan_experiment(experiment, "smoke", modalities=["normal"])


def make(planned: list[PlannedVariant], workspace: Path) -> list[StageOutput]:
    outputs: list[StageOutput] = []

    def run_nodes(config, place, nodes):
        outputs.extend(execute(config, node.id, place) for _, batch in batches(nodes) for node in batch)

    run_experiment(choose(planned, RUN), str(workspace), run_nodes)
    return outputs


@pytest.fixture(scope="module")
def made(experiment, planned, tmp_path_factory) -> tuple[Path, list[StageOutput], Path]:
    """Workspace, result of the run, and the experiment's folder."""
    workspace = tmp_path_factory.mktemp("compare")
    outputs = make(planned, workspace)
    return workspace, outputs, Path(write_outputs("compare", experiment, planned, Workspace(str(workspace))))


@pytest.mark.slow
def test_an_error_leaves_the_tables_of_earlier_scores(experiment, planned, made, monkeypatch):
    def broken(*_):
        raise InputError("train.steps: of this variant alone")

    monkeypatch.setattr("dmp_core.cli.experiments.run_experiment", broken)
    index = made[2] / "experiment.json"
    index.unlink()
    run = CliRunner().invoke(app, ["compare", "-p", "smoke", "--modalities", "normal", "-w", str(made[0])])
    assert isinstance(run.exception, InputError) or run.exit_code == 2
    assert json.loads(index.read_text())["variants"]["dmp"]["scored"]
    write_outputs("compare", experiment, planned, Workspace(str(made[0])))


def metrics(variant: PlannedVariant, workspace: Path) -> dict:
    node = variant.find("evaluate/normal")
    assert node is not None
    return json.loads(node.artefact(Workspace(str(workspace))).read_bytes("metrics.json"))["normal"]


def test_shared_data_is_made_once(made):
    fresh = [output.id for output in made[1] if not output.cached]
    assert len([node for node in fresh if node.startswith(("prompts", "images", "labels", "latents"))]) == len(
        {node for node in fresh if node.startswith(("prompts", "images", "labels", "latents"))}
    )
    assert fresh.count("editor/instruct") == 1
    assert [node for node in fresh if node.startswith("train")] == [
        *(f"train/normal-{method}" for method in ("spade", "drit", "sdedit", "ip2p_hard", "ip2p_learned", "visii")),
        *(f"train/normal-{method}" for method in ("dmp", "dmp", "towards")),
    ]


def test_results_equal_the_evaluations(made, planned):
    scores = pd.read_parquet(made[2] / "results.parquet")
    titles = {name: find_method(name).title for name in RUN if name != "dmp-random"} | {"dmp-random": "DMP"}
    for name, row in titles.items():
        variant = choose(planned, [name])[0]
        for split, rows in metrics(variant, made[0]).items():
            mine = scores[(scores["variant"] == name) & (scores["split"] == split)].set_index("metric")
            assert set(mine["method"]) == {variant.title}
            assert set(mine.index) == rows[row]["metrics"].keys()
            for metric, entry in rows[row]["metrics"].items():
                assert tuple(mine.loc[metric, ["value", "ci_low", "ci_high"]]) == tuple(entry.values())
    references = scores[scores["variant"].isin(["ceiling", "mean_map", "constant"])]
    assert set(references["method"]) == {CEILING, MEAN_MAP, CONSTANT}
    assert not references.duplicated(["variant", "split", "task", "metric"]).any()


def test_the_table_prints_those_numbers_next_to_the_papers(made, planned):
    lines = {
        line.split("|")[1].strip(): line for line in (made[2] / "table1.md").read_text().splitlines() if "|" in line
    }
    for title, name, row in (
        ("DMP", "dmp", "DMP"),
        ("SDEdit", "sdedit", "SDEdit"),
        ("InstructPix2Pix (hard)", "ip2p_hard", "InstructPix2Pix (hard)"),
        ("VISII", "visii", "VISII"),
        ("Random weights", "dmp-random", "DMP"),
        ("Facing", "towards", "Facing"),
    ):
        cells = [cell.strip() for cell in lines[title].split("|")[2:-1]]
        found = metrics(choose(planned, [name])[0], made[0])
        for column, split in ((0, "in_domain"), (5, "out_of_domain")):
            for offset, metric in enumerate(("l1", "angular_dmp_compat")):
                value = found[split][row]["metrics"][metric]["mean"]
                assert cells[column + offset].split("<br>")[0] == f"{value:.4f}"
        assert cells[2] == "—"  # depth was not requested
    assert "*0.0514*" in lines["*DMP (paper)*"]
    assert set(cell.strip() for cell in lines["DMP, all weights"].split("|")[2:-1]) == {"not run"}


def test_random_weights_are_another_network(made, planned):
    cards = {}
    for name in ("dmp", "dmp-random"):
        node = choose(planned, [name])[0].find("train/normal-dmp")
        assert node is not None
        cards[name] = json.loads(node.artefact(Workspace(str(made[0]))).read_bytes("dmp.json"))["training"]
    assert "init" not in cards["dmp"]
    assert (cards["dmp-random"]["init"], cards["dmp-random"]["weights"]) == ("random", "all")
    assert cards["dmp"]["steps"] == cards["dmp-random"]["steps"]


def test_a_third_partys_method_is_fitted_run_and_scored(made, planned):
    assert method_names()[-1] == "towards"
    assert find_method("towards").title == "Facing"
    train = choose(planned, ["towards"])[0].find("train/normal-towards")
    assert train is not None
    manifest = train.artefact(Workspace(str(made[0]))).published()
    assert manifest.details["pairs"] == manifest.details["images"] == 3
    assert manifest.config["train"] == {"method": "towards", "samples": 3, "z": 1.0}
    rows = metrics(choose(planned, ["towards"])[0], made[0])["in_domain"]
    assert rows.keys() == {"Facing", CEILING, MEAN_MAP, CONSTANT}


@pytest.mark.parametrize("name", ["spade", "drit"])
def test_translators_get_the_classes_they_were_trained_on(made, planned, name):
    """The published predictions are those of the saved network on the images, in the label's own units."""
    workspace = Workspace(str(made[0]))
    variant = choose(planned, [name])[0]
    nodes = {part: variant.find(f"{part}/{rest}") for part, rest in {
        "train": f"normal-{name}", "images": "in_domain", "predict": f"in_domain-normal-{name}",
    }.items()}  # fmt: skip
    artefacts = {part: node.artefact(workspace) for part, node in nodes.items() if node is not None}
    network = {"spade": SpadeModel, "drit": DritModel}[name].load(artefacts["train"].local_path())
    image = column_array(None, next(iter(read_artefact(artefacts["images"]))))
    predicted = column_array(find_modality("normal"), next(iter(read_artefact(artefacts["predict"]))))
    expected = network(torch.from_numpy(image.copy())[None].movedim(-1, 1) / 127.5 - 1)[0].movedim(0, -1).numpy()
    cosine = (predicted * expected).sum(-1) / np.linalg.norm(expected, axis=-1)
    assert cosine.min() > 0.999
    assert artefacts["train"].published().details["images"] == 4


def test_differences_are_paired(made):
    versus = pd.read_parquet(made[2] / "differences.parquet")
    scores = pd.read_parquet(made[2] / "results.parquet").set_index(["variant", "split", "metric"])["value"]
    assert set(versus["variant"]) == set(RUN) - {"dmp"}
    for row in versus.itertuples():
        expected = scores[row.variant, row.split, row.metric] - scores["dmp", row.split, row.metric]
        assert row.difference == pytest.approx(expected)
        assert row.verdict == ("even" if row.ci_low <= 0 <= row.ci_high else "worse" if row.ci_low > 0 else "better")


def test_groups_are_scored_separately(made, planned):
    """A group of one image has that image's scores; `dmp-random` is compared with `dmp` on it alone."""
    workspace = Workspace(str(made[0]))
    tables = {}
    for name in ("dmp", "dmp-random"):
        node = choose(planned, [name])[0].find("evaluate/normal")
        assert node is not None
        frame = pd.read_parquet(node.artefact(workspace).local_path() / "in_domain-dmp.parquet")
        tables[name] = frame.set_index("key")["angular_deg"]
    one, two = tables["dmp"].index
    about = {"title": "Apart", "split": "in_domain", "field": "key"}
    spec = GroupSpec(**about, names={two: "second", one: "first", "none": "nothing"})
    shown = choose(planned, list(tables))
    found = groups.groups(spec, shown, "dmp", workspace)
    assert [(group.name, group.images) for group in found] == [("second", 1), ("first", 1)]
    for group, key in zip(found, (two, one), strict=True):
        assert group.reference.value == pytest.approx(tables["dmp"][key])
        assert group.differences["dmp-random"].value == pytest.approx(tables["dmp-random"][key] - tables["dmp"][key])
    both = groups.groups(
        GroupSpec(**about | {"field": "generator.kind"}, names={"render": "all"}), shown, "dmp", workspace
    )
    assert both[0].images == 2
    assert both[0].reference.value == pytest.approx(tables["dmp"].mean())
    text = groups.markdown(spec, found, "dmp", {variant.name: variant.title for variant in shown})
    assert f"| Normals, first | Angle ↓ | 1 | {tables['dmp'][one]:.1f}<br>" in text
    assert not groups.groups(spec, shown[1:], "dmp", workspace)  # nothing to compare them with


def test_grids_show_images_labels_and_predictions(made):
    index = json.loads((made[2] / "experiment.json").read_text())
    assert index["outputs"]["figure4"]["files"] == ["figure4.png"]
    assert index["outputs"]["figure5"]["files"] == []  # no classes were predicted
    assert {name for name, about in index["variants"].items() if about["scored"]} == set(RUN)
    picture = np.asarray(Image.open(made[2] / "figure4.png"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 500


def test_the_results_page_has_the_tables_and_lists_variants_not_run(made, monkeypatch, tmp_path):
    monkeypatch.setattr(results, "IMAGES", tmp_path / "images")
    pages = [results.section(made[2], outputs) for outputs in results.PAGES["compare"].values()]
    assert all("`dmp compare --preset smoke`" in page for page in pages)
    text = "".join(pages)
    assert (made[2] / "table1.md").read_text() in text
    assert "Not run: DMP, all weights." in text
    for name in re.findall(r"\]\(images/([^)]+)\)", text):
        assert (tmp_path / "images" / name).is_file()
    assert "results-compare-figure4.jpg" in text
    versus = pd.read_parquet(made[2] / "differences.parquet")
    spade = versus[(versus["variant"] == "spade") & (versus["split"] == "in_domain")]
    counts = [sum(spade["verdict"] == word) for word in ("better", "even", "worse")]
    assert sum(counts) == 1  # one task
    assert f"| SPADE | {' / '.join(map(str, counts))} |" in text


@pytest.mark.e2e
def test_a_second_run_makes_nothing_and_writes_the_same(made, experiment, planned):
    assert all(output.cached for output in make(planned, made[0]))
    before = {path.name: path.read_bytes() for path in made[2].iterdir()}
    write_outputs("compare", experiment, planned, Workspace(str(made[0])))
    assert {path.name: path.read_bytes() for path in made[2].iterdir()} == before


def test_scores_outlive_their_artefacts_but_not_their_settings(made, experiment, planned, tmp_path):
    shutil.copytree(made[2], tmp_path / "experiments" / "compare")
    empty = Workspace(str(tmp_path))
    folder = Path(write_outputs("compare", experiment, planned, empty))
    kept = ("results.parquet", "differences.parquet", "table1.md", "generalisation.md")
    for name in kept[:2]:
        before, after = (pd.read_parquet(place / name) for place in (made[2], folder))
        pd.testing.assert_frame_equal(after, before)
    assert all((folder / name).read_text() == (made[2] / name).read_text() for name in kept[2:])
    other = plan_experiment(experiment, "smoke", overrides=["seed=5"], modalities=["normal"])
    write_outputs("compare", experiment, other, empty)
    assert all(pd.read_parquet(folder / name).empty for name in kept[:2])


def test_more_samples_than_pass_the_gates_are_refused(made, planned):
    workspace = str(made[0])
    scored = planned[0].find("quality/train")
    assert scored is not None
    middle = float(read_scores(scored.artefact(Workspace(workspace)))["std"].median())
    strict = {"quality": {"min_std": middle}, "train": {"samples": 4}, "adapters": {}}
    wrong = {"title": "t", "preset": "smoke", "reference": "a", "outputs": {}}
    alone = Experiment.model_validate(wrong | {"variants": {"a": {"title": "a", "set": strict}}})
    (variant,) = plan_experiment(alone, modalities=["normal"])
    with pytest.raises(InputError, match=r"train.samples: 4, but the training split has 2; enlarge"):
        execute(variant.config, "train/normal-dmp", workspace)
