"""What gates and failures leave out stays readable, with the reason; and people reject samples by a file of keys."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dmp_core.cli import app
from dmp_core.errors import InputError
from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.quality.rejects import listed, marked
from dmp_core.requests.rejects import open_with_rejects, rejects_of
from dmp_core.stages import plan
from dmp_core.store import open_dataset
from tests.app.rooms import configuration, dataset_of, write_rooms
from tests.report.rooms import room

BLANK, BROKEN, COUNT = 2, 4, 7
SKIP = "runtime.on_bad_sample={policy: skip, at_most: 0.5}"
GATES = ("quality.min_std=5", "shards.samples_per_shard=3")


def key(index: int) -> str:
    return f"train-{index:08d}"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "train"
    write_rooms(folder, COUNT, blank=[BLANK], broken=[BROKEN])
    return folder


@pytest.fixture(scope="module")
def dataset(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset_of(configuration(photos, SKIP, *GATES), tmp_path_factory.mktemp("workspace"))


def keys(dataset: Path) -> list[str]:
    return [sample["__key__"] for sample in open_dataset(str(dataset / "train"))]


# ------------------------------------------------------------------------------ SPLIT.rejects
def test_each_sample_is_in_the_split_or_in_its_rejects(dataset: Path) -> None:
    found = {reject.key: (reject.gate, reject.reason) for reject in rejects_of(f"{dataset}/train.rejects")}
    assert found.keys() == {key(BLANK), key(BROKEN)}
    assert found[key(BLANK)] == ("min_std", "std 0, min 5")
    gate, reason = found[key(BROKEN)]
    assert gate == "failed"
    assert "not a readable image" in reason
    assert sorted([*keys(dataset), *found]) == [key(index) for index in range(COUNT)]


def test_a_rejected_sample_is_complete_and_states_why(dataset: Path) -> None:
    (sample,) = open_with_rejects(f"{dataset}/train.rejects").samples("train.rejects")
    assert (sample.key, sample.split) == (key(BLANK), "train.rejects")
    assert (sample.rgb == 90).all()
    for name in BUILT_IN:
        modality, truth = find_modality(name), room(BLANK)[name]
        truth = truth.astype(np.uint8 if name == "segmentation" else np.float32)
        assert sample.labels[name] == modality.encode(modality.decode(modality.encode(truth)))
    kept = next(open_with_rejects(str(dataset)).samples("train"))
    assert sample.record.keys() - kept.record.keys() == {"rejected"}
    assert sample.record["rejected"] == {"gate": "min_std", "reason": "std 0, min 5"}


def test_exports_take_rejects_by_name_and_never_by_default(dataset: Path, tmp_path: Path) -> None:
    command = ["export", "--format", "imagefolder", "--out"]
    app([*command, str(tmp_path / "bad"), f"{dataset}/train.rejects"], standalone_mode=False)
    lines = (tmp_path / "bad" / "train.rejects" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == [key(BLANK)]
    both = [str(dataset), "--split", "train", "--split", "train.rejects"]
    app([*command, str(tmp_path / "both"), *both], standalone_mode=False)
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"train", "train.rejects", "croissant.json"}
    app([*command, str(tmp_path / "plain"), str(dataset)], standalone_mode=False)
    assert {path.name for path in (tmp_path / "plain").iterdir()} == {"train", "croissant.json"}


def test_show_lists_them(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["dataset", "show", f"{dataset}/train.rejects", "--json"], standalone_mode=False)
    rows = json.loads(capsys.readouterr().out)
    assert [(row["key"], row["gate"]) for row in rows] == [(key(BLANK), "min_std"), (key(BROKEN), "failed")]
    app(["dataset", "show", f"{dataset}/train.rejects"], standalone_mode=False)
    assert "std 0, min 5" in capsys.readouterr().out


def test_a_dataset_without_its_workspace_says_where_to_look(dataset: Path, tmp_path: Path) -> None:
    import shutil

    alone = tmp_path / "datasets" / "rooms"
    shutil.copytree(dataset, alone)
    assert len(list(open_with_rejects(str(alone)).samples("train"))) == COUNT - 2
    with pytest.raises(InputError, match="read from the workspace in which the dataset was made"):
        rejects_of(f"{alone}/train.rejects")
    with pytest.raises(InputError, match=r"--split x: .* has train"):
        open_with_rejects(str(dataset), ["x.rejects"])
    with pytest.raises(InputError, match="no finished dataset here"):
        rejects_of(f"{dataset}/nothing.rejects")


# ------------------------------------------------------------------------- the hand-written gate
def test_marked_keys_are_left_out_and_named(photos: Path, dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "rejects.txt"
    file.write_text(f"# seen by eye\n\n{key(0)}\n  {key(6)}  # too dark\n{key(0)}\n")
    config = configuration(photos, SKIP, *GATES, f"quality.rejects_file={file}")
    merged = dataset_of(config, dataset.parents[1])
    assert keys(merged) == [key(index) for index in (1, 3, 5)]
    gates = {reject.key: reject.gate for reject in rejects_of(f"{merged}/train.rejects")}
    assert gates == {key(0): "rejects", key(2): "min_std", key(4): "failed", key(6): "rejects"}
    assert json.loads((merged / "train" / "manifest.json").read_text())["details"]["dropped"]["rejects"] == 2
    dataset_of(configuration(photos, SKIP, *GATES), dataset.parents[1])  # without the file they are back
    assert len(keys(merged)) == COUNT - 2


def test_only_stages_that_drop_them_depend_on_marks(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "rejects.txt"
    file.write_text(f"{key(3)}\n")
    plain, marks = (
        {node.id: node.fingerprint for node in plan(configuration(photos, SKIP, *more))}
        for more in ((), (f"quality.rejects_file={file}",))
    )
    assert {node for node in plain if plain[node] != marks[node]} == {"shards/rooms/train"}
    listed_keys = configuration(photos, SKIP, f"quality.rejects=[{key(3)}]")
    assert {node.id: node.fingerprint for node in plan(listed_keys)} == marks
    file.write_text("# none\n")
    unmarked = plan(configuration(photos, SKIP, f"quality.rejects_file={file}"))
    assert {node.id: node.fingerprint for node in unmarked} == plain


def test_a_mark_in_one_split_retrains_nothing(tmp_path: Path) -> None:
    from dmp_core.config import load_config

    def fingerprints(*more: str) -> dict[str, str]:
        return {node.id: node.fingerprint for node in plan(load_config("smoke", None, list(more)))}

    plain, test, train = (
        fingerprints(*more)
        for more in ((), *((f"quality.rejects=[{split}-00000001]",) for split in ("in_domain", "train")))
    )
    changed = {node.partition("/")[0] for node in plain if plain[node] != test[node]}
    assert changed == {"shards", "evaluate", "report"}
    assert {"train", "predict"} <= {node.partition("/")[0] for node in plain if plain[node] != train[node]}


@pytest.mark.parametrize("bad", ["train-00000007", "train-7", "test-00000000", "0003", "train-00000001 x"])
def test_an_unknown_key_is_named_with_its_line(bad: str, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "rejects.txt"
    file.write_text(f"{key(1)}\n{bad}\n")
    reason = f"rejects.txt, line 2: '{bad}' is no sample of this configuration .train-00000000 to 00000006.; remove it"
    with pytest.raises(InputError, match=reason):
        plan(configuration(photos, SKIP, f"quality.rejects_file={file}"))
    with pytest.raises(InputError, match=f"quality.rejects: '{bad}' is no sample"):
        plan(configuration(photos, SKIP, f"quality.rejects=['{bad}']"))


def test_a_missing_file_is_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"quality.rejects_file: .*none.txt does not exist"):
        plan(configuration(photos, SKIP, f"quality.rejects_file={tmp_path / 'none.txt'}"))


def test_when_all_are_marked_one_error_says_so(photos: Path, tmp_path: Path) -> None:
    everything = ", ".join(key(index) for index in range(COUNT))
    with pytest.raises(InputError, match=r"the gates leave none of the .* samples .*rejects"):
        dataset_of(configuration(photos, SKIP, f"quality.rejects=[{everything}]"), tmp_path)


def test_marks_keep_every_other_line() -> None:
    known = {"a", "b", "no # 1"}.__contains__
    text = "# mine\nb  # why\n\nother\n"
    assert marked(text, "a", True, known) == "# mine\nb  # why\n\nother\na\n"
    assert marked(marked(text, "a", True, known), "a", False, known) == text
    assert marked(text, "b", False, known) == "# mine\n\nother\n"
    assert list(listed(marked("", "no # 1", True, known), known)) == [(1, "no # 1")]
    assert list(listed(text, known)) == [(2, "b"), (4, "other")]
