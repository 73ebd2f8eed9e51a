"""The predict stage: outputs that are not finite, and contradictions of the adapter's card, are errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from dmp_core.config import load_config
from dmp_core.config.presets import validate
from dmp_core.errors import InputError
from dmp_core.resources import manifest_root
from dmp_core.stages import execute, find, plan
from dmp_core.store import Workspace
from tests.making import make

TINY = [
    "modalities=[normal]", "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}", "runtime.workers=1",
    "sampling.num_steps=1",
]  # fmt: skip


def overflowing(folder: Path) -> Path:
    shutil.copytree(manifest_root() / "adapters" / "normal", folder, copy_function=shutil.copyfile)
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor.float() * 1e30 for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    return folder


def test_an_output_that_is_not_finite_is_refused_by_its_key(tmp_path: Path) -> None:
    config = load_config("smoke", None, [*TINY, f"adapters={{normal: {overflowing(tmp_path / 'adapter')}}}"])
    wanted = find(plan(config), "predict/arbitrary-normal-dmp")
    for made in ("prompts/arbitrary", "images/arbitrary", "train/normal-dmp"):
        execute(config, made, str(tmp_path / "w"))
    with pytest.raises(InputError, match="arbitrary-00000000: the model's output holds NaN or infinity"):
        execute(config, wanted.id, str(tmp_path / "w"))
    assert wanted.artefact(Workspace(str(tmp_path / "w"))).manifest() is None


def test_further_sources_are_rows_of_the_scores_and_of_the_report(tmp_path: Path) -> None:
    settings = load_config("smoke", None, [*TINY, "adapters={normal: 'shipped:normal'}"]).model_dump(mode="json")
    settings["splits"] = {name: settings["splits"][name] | {"count": 1} for name in ("train", "in_domain")}
    settings["sampling"] |= {"source": "estimated", "num_steps": 3}
    config = validate(settings | {"evaluate": {"bootstrap_samples": 100, "sources": ["oracle", "estimated"]}}, "test")
    place = str(tmp_path / "w")
    make(place, config)
    scores = json.loads(find(plan(config), "evaluate/normal").artefact(Workspace(place)).read_bytes("metrics.json"))
    for rows in scores["normal"].values():
        own, other = (rows[row]["metrics"]["angular_deg"]["mean"] for row in ("DMP", "DMP (oracle)"))
        assert own != other
        assert {row for row in rows if row.startswith("DMP")} == {"DMP", "DMP (oracle)"}
    assert "DMP (oracle)" in (tmp_path / "w" / "report" / "index.html").read_text()
    # The second row alone is made: predictions of the first stay as they are, whoever asks for them.
    name = "predict/in_domain-normal-dmp"
    assert find(plan(config), name).fingerprint == find(plan(validate(settings, "test")), name).fingerprint
    settings["sampling"]["source"] = "oracle"
    oracle = find(plan(validate(settings, "test")), name)
    assert oracle.fingerprint == find(plan(config), f"{name}-oracle").fingerprint
    assert oracle.artefact(Workspace(place)).status() == "complete"


def test_a_damaged_adapter_is_not_installed(tmp_path: Path) -> None:
    folder = overflowing(tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    weights[min(weights)].view(-1)[0] = float("nan")
    save_file(weights, file, {"format": "pt"})
    config = load_config("smoke", None, [*TINY, f"adapters={{normal: {folder}}}"])
    with pytest.raises(InputError, match=r"adapter_model\.safetensors: tensor .* holds NaN or infinity"):
        execute(config, "train/normal-dmp", str(tmp_path / "w"))


def test_an_adapter_of_another_task_or_encoding_is_refused_before_any_work(tmp_path: Path) -> None:
    def planned(adapters: str, *more: str) -> None:
        plan(load_config("mini", None, [f"adapters={{{adapters}}}", *more]))

    with pytest.raises(InputError, match=r"adapters\.normal: shipped:depth: .*trained for depth, not for normal"):
        planned("normal: 'shipped:depth'")
    with pytest.raises(InputError, match=r"adapters\.depth: .*its depth scale is 8, latents\.depth_scale is 10"):
        planned("depth: 'shipped:depth'", "latents.depth_scale=10")
    with pytest.raises(InputError, match=r"its palette is default, latents\.palette is dmp2"):
        planned("segmentation: 'shipped:segmentation'", "latents.palette=dmp2")
    folder = tmp_path / "sixteen"
    shutil.copytree(manifest_root() / "adapters" / "depth", folder, copy_function=shutil.copyfile)
    card = json.loads((folder / "dmp.json").read_text())
    (folder / "dmp.json").write_text(json.dumps(card | {"encoding": {"mode": "F", "scale": 16.0}}))
    planned(f"depth: {folder}", "latents.depth_scale=16")
    with pytest.raises(InputError, match="its depth scale is 16"):
        planned(f"depth: {folder}")
    with pytest.raises(InputError, match="a file; give the folder"):
        planned(f"depth: {folder / 'adapter_model.safetensors'}")
    with pytest.raises(InputError, match="no such adapter"):
        planned("depth: some/adapter")
