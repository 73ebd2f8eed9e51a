"""Every estimate states its source, and is right for shapes and rates that are known."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from dmp_core.cli import app
from dmp_core.config import load_config
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages import execute, find, plan
from dmp_core.stages.estimate import estimate_seconds, ram_gb
from dmp_core.stages.hardware import find_speed, speed_of
from dmp_core.store import Workspace, plan_shards, write_shards

PAPER = load_config("paper")


@pytest.fixture(scope="module")
def nodes():
    return plan(PAPER)


@pytest.mark.parametrize(
    ("name", "half"),
    [("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A10", 125), ("NVIDIA GeForce RTX 4090", 165), ("Tesla T4", 65)],
)
def test_a_gpu_is_known_by_its_name(name, half):
    speed = speed_of(name)
    assert speed is not None
    assert (speed.device, round(speed.half / 0.18)) == (name, half)
    assert speed_of("NVIDIA GeForce GTX 1080") is None


def test_sizes_of_arrays_are_those_of_their_shapes(nodes, tmp_path):
    place, per_sample = Workspace(str(tmp_path)), {}
    for name in ("labels/train-depth", "latents/depth", "shards/bedrooms/train", "images/train"):
        node = find(nodes, name)
        estimate = estimate_seconds(node, place)
        assert estimate.size_source == "computed"
        per_sample[name] = estimate.bytes / node.samples
    assert per_sample["labels/train-depth"] == pytest.approx(2 * 512 * 512, rel=0.01)
    assert per_sample["latents/depth"] == 2 * 4 * 64 * 64 * 4  # plain and mirrored, float32
    assert per_sample["shards/bedrooms/train"] > per_sample["images/train"] + per_sample["labels/train-depth"]


def test_images_of_one_step_without_guidance_take_a_25th_of_the_time(nodes, tmp_path):
    """With and without a known device: 50 guided steps and decoding, or a single pass and decoding."""
    place, turbo = Workspace(str(tmp_path)), find(plan(load_config("paper-turbo")), "images/train")
    paper, ratio = find(nodes, "images/train"), (0.80 + 2.52) / (100 * 0.80 + 2.52)
    for runtime in (None, RuntimeConfig(device="cpu")):
        whole, cheap = (estimate_seconds(node, place, runtime).seconds for node in (paper, turbo))
        assert cheap / whole == pytest.approx(ratio)
    assert estimate_seconds(paper, place).seconds == 2.0 * paper.samples


def test_times_are_computed_from_operations_and_the_device(nodes, tmp_path):
    place, runtime = Workspace(str(tmp_path)), RuntimeConfig(device="cpu")
    speed = find_speed(runtime)
    assert speed is not None
    images = find(nodes, "images/train")
    estimate = estimate_seconds(images, place, runtime)
    assert estimate.source == "computed"
    assert estimate.seconds / images.samples == pytest.approx((100 * 0.80 + 2.52) / speed.half)
    assert estimate_seconds(images, place).source == "default"
    assert estimate_seconds(find(nodes, "prompts/train"), place, runtime).source == "default"


def test_columns_of_one_pass_take_its_time_once(nodes, tmp_path):
    place, runtime = Workspace(str(tmp_path)), RuntimeConfig(device="cpu")
    albedo, shading, other = (
        find(nodes, f"labels/{name}") for name in ("train-albedo", "train-shading", "in_domain-albedo")
    )
    full = estimate_seconds(albedo, place, runtime, [other])
    assert full.seconds > 0
    after = estimate_seconds(shading, place, runtime, [albedo])
    assert (after.seconds, after.bytes) == (0, estimate_seconds(shading, place, runtime).bytes)
    assert estimate_seconds(shading, place, runtime, [other]).seconds == full.seconds
    arguments = ["plan", "-p", "paper", "-w", str(tmp_path), "--set", "runtime.device=cpu"]
    for more, key in ((["--json"], "artefacts"), (["--json", "--variants", "dmp"], "variants")):
        shown = json.loads(CliRunner().invoke(app, [*arguments, *more]).output)[key]
        if key == "artefacts":
            seconds = {row["id"]: row["seconds"] for row in shown}
            assert (seconds["labels/train-albedo"], seconds["labels/train-shading"]) == (round(full.seconds, 1), 0)
        else:
            total = sum(seconds.values())
            assert total - seconds["labels/train-albedo"] < shown[0]["seconds"] <= total


def test_a_column_that_is_ahead_leaves_the_rest_of_the_other(tmp_path):
    """One network gives both; the first has a shard that the other lacks, as of a run with the other left out."""
    own = ["modalities=[albedo, shading]", "images.resolution=16", "shards.samples_per_shard=1",
           "labels={albedo: {kind: pienet, weights: pienet}, shading: {kind: pienet, weights: pienet}}"]  # fmt: skip
    place, nodes = Workspace(str(tmp_path)), plan(load_config("smoke", None, own))
    albedo, shading = (find(nodes, f"labels/train-{name}") for name in ("albedo", "shading"))
    plans = plan_shards([f"train-{n:08d}" for n in range(albedo.samples)], 1)
    before = estimate_seconds(albedo, place)
    write_shards(albedo.artefact(place), plans, lambda plan: [{"__key__": key} for key in plan.keys], only=[0])
    left = estimate_seconds(shading, place, before=[albedo])
    assert left.seconds == pytest.approx(before.seconds / albedo.samples)


def test_rates_are_measured_for_the_same_kind_of_work_only(tmp_path):
    config = load_config("smoke", None, ["modalities=[normal, depth]", "images.resolution=16"])
    place = Workspace(str(tmp_path))
    for name in ("prompts/in_domain", "images/in_domain", "labels/in_domain-normal"):
        execute(config, name, str(tmp_path))
    made = plan(config)
    sources = {name: estimate_seconds(find(made, f"labels/train-{name}"), place).source for name in ("normal", "depth")}
    assert sources == {"normal": "measured", "depth": "default"}
    larger = plan(load_config("smoke", None, ["images.resolution=32"]))
    assert estimate_seconds(find(larger, "images/train"), place).source == "default"
    assert estimate_seconds(find(made, "images/train"), place).source == "measured"


def test_memory_of_the_machine_counts_weights_shards_and_latents(nodes):
    assert ram_gb(find(nodes, "prompts/train"), 14 * 10**9) == pytest.approx(17)
    merged = ram_gb(find(nodes, "shards/bedrooms/train"), 0)
    assert 3.5 < merged < 6  # the interpreter, and a shard of 200 samples of about 2 MB, three times
    assert ram_gb(find(nodes, "train/depth-dmp"), 0) == pytest.approx(3 + 2 * 2 * 10_000 * 131_072 / 1e9)


def test_the_plan_states_the_source_of_every_figure(tmp_path):
    arguments = ["plan", "-p", "paper", "-w", str(tmp_path), "--set", "runtime.device=cpu"]
    shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}).output
    assert "c computed (" in shown
    assert "processor cores" in shown
    assert "d default (" in shown
    assert "memory: about 17 GB needed (computed)" in shown
    rows = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)["artefacts"]
    assert {row["source"] for row in rows} == {"computed", "default"}
    assert {row["bytes_source"] for row in rows} == {"computed", "default"}
