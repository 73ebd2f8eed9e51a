"""Your own modalities, from labels next to images to the report: by the YAML and by the package of the docs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands import WITHOUT_PREFECT, in_process

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "modalities.md").read_text()
SMALL = ["train.steps=30", "train.num_timesteps=1", "train.batch_size=4", "train.use_prompt=false"]
SMALL += ["sampling.use_prompt=false", "sampling.num_steps=1", "runtime.device=cpu", "runtime.workers=1"]
SMALL += ["evaluate.bootstrap_samples=100"]


def block(language: str, holding: str) -> str:
    """The code block of the docs that contains some text."""
    return next(code for code in re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL) if holding in code)


def dmp_with_packages(site: Path, *arguments: object) -> None:
    """In a process that has installed what lies in `site`, and no Prefect."""
    environment = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", WITHOUT_PREFECT, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def settings(overrides: list[str]) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def write_parts(folder: Path, names: tuple[str, ...], count: int = 24) -> None:
    """Grey discs on a plate: brighter ones are rougher, and each has a class by its position."""
    folder.mkdir()
    y, x = np.mgrid[:64, :64]
    for index in range(count):
        random = np.random.default_rng(index)
        image, rough, defect = np.full((64, 64), 90.0), np.full((64, 64), 40.0), np.zeros((64, 64), np.uint8)
        for kind in (1, 2, 3):
            row, column, size = random.integers(10, 54), random.integers(10, 54), random.integers(5, 10)
            disc = (y - row) ** 2 + (x - column) ** 2 < size**2
            image[disc], rough[disc], defect[disc] = 90 + 50 * kind, 60 * kind, kind
        defect[0] = 255
        edges = np.hypot(*np.gradient(image)) > 10
        image += random.normal(0, 3, image.shape)
        Image.fromarray(np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, -1)).save(
            folder / f"{index:02d}.png"
        )
        for name in names:
            label = {"roughness": rough, "defects": defect, "edge": edges * 255}[name]
            Image.fromarray(label.astype(np.uint8)).save(folder / f"{index:02d}.{name}.png")


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    write_parts(folder / "parts", ("roughness", "defects"))
    (folder / "own.yaml").write_text(block("yaml", "scratch"))
    return folder


@pytest.fixture(scope="module")
def trained(parts) -> Path:
    """The workspace of the docs' first example."""
    command = ["dataset", "import", parts / "parts", "-p", "smoke", "-c", parts / "own.yaml", "--hold-out", "0.25"]
    in_process(*command, "-w", parts / "runs", *settings(SMALL))
    return parts / "runs"


def scores(workspace: Path, name: str) -> dict[str, dict[str, float]]:
    """Row → metric → its mean over the held-out images."""
    rows = json.loads((workspace / "report" / "metrics.json").read_text())["metrics"][name]["in_domain"]
    return {row: {metric: value["mean"] for metric, value in found["metrics"].items()} for row, found in rows.items()}


def test_yaml_alone_takes_labels_to_scores(trained):
    rough, defects = scores(trained, "roughness"), scores(trained, "defects")
    assert rough["DMP"]["mse"] < rough["constant"]["mse"]
    assert defects["DMP"]["mean_iou"] > defects["constant"]["mean_iou"]
    page = (trained / "report" / "index.html").read_text()
    assert all(title in page for title in ("Roughness", "Defects"))


def test_the_vae_keeps_the_labels(trained):
    rough, defects = scores(trained, "roughness"), scores(trained, "defects")
    assert defects["VAE ceiling"]["mean_iou"] > 0.9
    assert rough["VAE ceiling"]["mse"] < rough["constant"]["mse"] / 5


def test_the_dataset_holds_the_labels_and_its_card_describes_them(trained, parts):
    import webdataset

    dataset = trained / "datasets" / "parts"
    shards = sorted(map(str, (dataset / "in_domain").glob("*.tar")))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("l8"))
    assert len(samples) == 6
    name = samples[0]["json"]["source"]["file"].removesuffix(".png")
    whole = Image.open(parts / "parts" / f"{name}.defects.png")
    assert np.array_equal(samples[0]["defects.png"], whole.resize((32, 32), Image.Resampling.NEAREST))
    card = (dataset / "README.md").read_text()
    assert "| `{key}.roughness.png` | 8-bit grey PNG |" in card
    assert "0 none, 1 scratch, 2 dent, 3 stain" in card
    assert samples[0]["json"]["labels"]["defects"].startswith("8-bit grey PNG Class id, 0 to 3")


def test_an_adapters_card_states_its_prediction(trained, parts, tmp_path):
    adapter = next((trained / "adapters").glob("defects-dmp-*"))
    in_process("predict", parts / "parts" / "00.png", "--adapter", adapter, "--out", tmp_path)
    label = np.asarray(Image.open(tmp_path / "00.defects.pred.png"))
    assert label.shape == (64, 64)
    assert set(np.unique(label)) <= {0, 1, 2, 3}


def test_the_pipeline_gives_the_labels_that_the_command_writes(trained, parts, tmp_path):
    from dmp_core.weights.load import load_base
    from dmp_core.weights.settings import BaseConfig

    adapter = next((trained / "adapters").glob("defects-dmp-*"))
    pipeline = load_base(BaseConfig(model="shipped:mini"))
    pipeline.load_adapter(adapter)
    image = Image.open(parts / "parts" / "01.png")
    label = pipeline(image, num_inference_steps=1, resolution=32, output_type="label").images[0]
    assert (label.shape, label.dtype) == ((64, 64), np.uint8)
    assert set(np.unique(label)) <= {0, 1, 2, 3}


def test_a_second_run_finds_everything_complete(trained, parts):
    rows = json.loads(in_process("plan", "-c", trained / "datasets" / "parts.yaml", "-w", trained, "--json").stdout)
    assert {row["status"] for row in rows["artefacts"]} == {"complete"}


@pytest.mark.e2e
def test_a_package_brings_a_modality(tmp_path):
    write_parts(tmp_path / "parts", ("edge",))
    package, site = tmp_path / "package", tmp_path / "site"
    package.mkdir()
    (package / "pyproject.toml").write_text(block("toml", "hatchling"))
    (package / "dmp_edge.py").write_text(block("python", "class Edge"))
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        site,
        package,
    ]
    subprocess.run(list(map(str, install)), check=True)
    overrides = settings([*SMALL, "modalities=[edge]"])
    command = ["dataset", "import", tmp_path / "parts", "-p", "smoke", "--hold-out", "0.25", "-w", tmp_path / "runs"]
    dmp_with_packages(site, *command, *overrides)
    edge = scores(tmp_path / "runs", "edge")
    assert 0 <= edge["DMP"]["dice"] <= 1
    assert edge["VAE ceiling"]["dice"] > 0.5
