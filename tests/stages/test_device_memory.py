"""Memory of the device: smaller batches when it runs out, one pass for several labels, nothing left behind."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from benchmarks import full_size
from dmp_core.config import PipelineConfig, load_config
from dmp_core.config.presets import validate
from dmp_core.errors import InputError
from dmp_core.memory import SHARED
from dmp_core.prompts.base import build_generator
from dmp_core.stages import Node, batches, execute, find, in_turn, plan
from dmp_core.store import Artefact, Workspace, read_artefact
from dmp_core.training.latents import read_column
from tests.packages import installed_package

PACKAGE = '''
import torch

class Intrinsics(torch.nn.Module):
    """Albedo and shading from one small network, as PIE-Net gives them."""

    passes = built = 0
    broken = False

    def __init__(self):
        super().__init__()
        Intrinsics.built += 1
        self.last = torch.nn.Conv2d(3, 4, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.rand(parameter.shape, generator=generator) / 10

    def forward(self, images):
        Intrinsics.passes += 1
        return self.last(images).sigmoid() * (float("nan") if Intrinsics.broken else 1)

def build(weights, device):
    network = Intrinsics()
    def label(images):
        with torch.no_grad():
            found = network(images)
        return {"albedo": found[:, :3], "shading": found[:, 3]}
    return label
'''
TINY = [
    "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}", "runtime.workers=1", "sampling.num_steps=1",
    "shards.samples_per_shard=5", "train.steps=1",
]  # fmt: skip
ADAPTERS = "adapters={normal: 'shipped:normal', depth: 'shipped:depth'}"
LABELERS = "labels={albedo: {kind: intrinsics, weights: any}, shading: {kind: intrinsics, weights: any}}"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An installed package with an entry point for a labeler."""
    points = "[dmp.labelers]\nintrinsics = intrinsics_package:build\n"
    with installed_package(tmp_path_factory.mktemp("site"), "intrinsics_package", PACKAGE, points):
        yield


def network_of_labels() -> Any:
    import intrinsics_package

    return intrinsics_package.Intrinsics


@pytest.fixture
def card() -> Iterator[Callable[[int], list[int]]]:
    """`card(n)`: from now on networks run out of memory above batches of n; the list records the batches tried."""
    hooks: list[Any] = []

    def limit(images: int) -> list[int]:
        tried: list[int] = []
        for earlier in hooks:
            earlier.remove()

        def check(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            kinds = (UNet2DConditionModel, torch.nn.Conv2d)
            if isinstance(module, kinds) and not (isinstance(module, torch.nn.Conv2d) and inputs[0].shape[1] != 3):
                tried.append(len(inputs[0]))
                if tried[-1] > images:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB.")

        hooks.append(torch.nn.modules.module.register_module_forward_pre_hook(check))
        return tried

    yield limit
    for hook in hooks:
        hook.remove()


def config(*more: str, modalities: str = "normal") -> PipelineConfig:
    values = load_config("smoke", None, [f"modalities=[{modalities}]", *TINY, *more]).model_dump(mode="json")
    values["splits"] = {name: {"keywords": ["bedroom"], "count": 5} for name in ("train", "in_domain")}
    return validate(values, "test")


def made(settings: PipelineConfig, workspace: Path, *nodes: str) -> Artefact:
    """The last of these artefacts."""
    for node in nodes:
        execute(settings, node, str(workspace))
    return find(plan(settings), nodes[-1]).artefact(Workspace(workspace))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with five images per split, and their normals."""
    workspace = tmp_path_factory.mktemp("rendered")
    images = [f"{stage}/{split}" for split in ("in_domain", "train") for stage in ("prompts", "images")]
    made(config(), workspace, *images, "labels/train-normal")
    return workspace


@pytest.fixture
def fresh(rendered: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies of that workspace, by name."""
    return lambda name: shutil.copytree(rendered, tmp_path / name)


def shards(artefact: Artefact) -> list[bytes]:
    return [artefact.read_bytes(record.name) for record in artefact.published().files]


# --------------------------------------------------------------------------------- smaller batches
@pytest.mark.parametrize(("fits", "batches"), [(1, [5, 2, 1, 1, 1, 1, 1]), (3, [5, 2, 2, 1])])
def test_labels_are_the_same_bytes_in_smaller_batches(fresh, card, caplog, fits, batches):
    settings = config(LABELERS, modalities="albedo, shading")
    nodes = "labels/train-albedo", "labels/train-shading"
    plenty, short = fresh("plenty"), fresh("short")
    expected = [shards(made(settings, plenty, node)) for node in nodes]
    tried = card(fits)
    assert [shards(made(settings, short, node)) for node in nodes] == expected
    assert tried == batches
    assert "labels/train-albedo: out of memory at a batch of 5; continuing with batches of 2" in caplog.text


def test_latents_are_the_same_in_smaller_batches_up_to_rounding(fresh, card, caplog):
    settings = config()
    expected = read_column(shards(made(settings, fresh("plenty"), "latents/normal")))
    tried = card(2)
    found = read_column(shards(made(settings, fresh("short"), "latents/normal")))
    assert found.keys == expected.keys
    torch.testing.assert_close(found.plain, expected.plain, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.flipped, expected.flipped, atol=1e-4, rtol=1e-4)
    assert tried == [4, 2, 2, 2, 2, 1, 1]  # plain and mirrored; smoke's batches have 4
    assert "latents/normal: out of memory at a batch of 4; continuing with batches of 2" in caplog.text


@pytest.mark.parametrize("node", ["latents/normal", "labels/train-albedo"])
def test_a_shard_that_was_made_in_smaller_batches_is_redone_in_these(fresh, card, node):
    """Otherwise latents would differ by rounding, and be refused: torch takes another kernel for one small image."""
    settings = config(*[LABELERS] * ("albedo" in node), modalities="albedo" if "albedo" in node else "normal")
    plenty, short = fresh("plenty"), fresh("short")
    configured = shards(made(settings, plenty, node))
    card(1)
    artefact = made(settings, short, node)
    (record,) = artefact.published().files
    assert record.batch == 1
    before = artefact.read_bytes(record.name)
    assert ([before] != configured) is ("latents" in node)
    tried = card(99)
    execute(settings, node, str(short), shards=[0])
    assert set(tried) == {1}
    assert artefact.read_bytes(record.name) == before
    Path(artefact.file(record.name)).unlink()
    execute(settings, node, str(short))
    assert artefact.read_bytes(record.name) == before


PREDICTED = ("train/normal-dmp", "predict/in_domain-normal-dmp")


def codes(settings: PipelineConfig, artefact: Artefact) -> np.ndarray:
    modality = settings.modality("normal")
    return np.stack([modality.stored(sample[modality.member]) for sample in read_artefact(artefact)]) * 127.5


def test_predictions_are_the_same_in_smaller_batches_up_to_rounding(fresh, card, caplog):
    settings = config("adapters={normal: 'shipped:normal'}")
    expected = codes(settings, made(settings, fresh("plenty"), *PREDICTED))
    card(2)
    found = codes(settings, made(settings, fresh("short"), *PREDICTED))
    assert np.abs(found - expected).max() <= 1.01
    assert (found != expected).mean() < 0.01
    assert f"{PREDICTED[-1]}: out of memory at a batch of 5; continuing with batches of 2" in caplog.text


@pytest.mark.parametrize(
    ("node", "policy"),
    [("labels/train-albedo", "skip"), ("latents/normal", "fail"), (PREDICTED[-1], "fail"), (PREDICTED[-1], "skip")],
)
def test_where_not_even_one_fits_the_settings_are_named(fresh, card, node, policy):
    name = "albedo" if "albedo" in node else "normal"
    labels = [LABELERS] if name == "albedo" else []
    adapters = ["adapters={normal: 'shipped:normal'}"] if node in PREDICTED else []
    settings = config(*labels, *adapters, f"runtime.on_bad_sample.policy={policy}", modalities=name)
    workspace = fresh("short")
    if adapters:
        made(settings, workspace, PREDICTED[0])
    card(0)
    with pytest.raises(InputError, match=f"{node}: one image does not fit into the memory of cpu; set .*=cpu"):
        execute(settings, node, str(workspace))


# ------------------------------------------------------------------------------ not a finite number
def test_a_prediction_that_is_not_finite_is_made_again_in_float32(fresh, caplog):
    """The second image of every batch is NaN in half precision."""
    settings = config("adapters={normal: 'shipped:normal'}", "sampling.dtype=bfloat16")
    expected = codes(settings, made(settings, fresh("sound"), *PREDICTED))

    def spoil(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        if (
            isinstance(module, UNet2DConditionModel)
            and output.sample.dtype == torch.bfloat16
            and len(output.sample) > 1
        ):
            output.sample[1] = torch.nan
        return output

    hook = torch.nn.modules.module.register_module_forward_hook(spoil)
    try:
        found = codes(settings, made(settings, fresh("spoilt"), *PREDICTED))
    finally:
        hook.remove()
    assert "in_domain-00000001: the model's output holds NaN or infinity" in caplog.text
    assert "again in float32" in caplog.text
    assert np.isfinite(found).all()
    assert np.abs(found - expected).mean() < 2


# ---------------------------------------------------------------------------------------- one pass
def test_one_pass_fills_both_columns_with_the_bytes_of_two(fresh):
    settings, together = config(LABELERS, modalities="albedo, shading"), fresh("together")
    network = network_of_labels()
    network.passes = 0
    albedo = made(settings, together, "labels/train-albedo")
    assert find(plan(settings), "labels/train-shading").artefact(Workspace(together)).status() == "partial"
    shading = made(settings, together, "labels/train-shading")
    assert network.passes == 1
    for name, both in (("albedo", albedo), ("shading", shading)):
        # Planned alone, the other column is not filled.
        alone = made(config(LABELERS, modalities=name), fresh(name), f"labels/train-{name}")
        assert (alone.fingerprint, shards(alone)) == (both.fingerprint, shards(both))
        assert alone.published().files == both.published().files


def test_columns_with_other_settings_are_not_filled(fresh):
    other = LABELERS.replace("shading: {kind: intrinsics, weights: any", "shading: {kind: intrinsics, weights: other")
    settings, workspace = config(other, modalities="albedo, shading"), fresh("here")
    made(settings, workspace, "labels/train-albedo")
    assert find(plan(settings), "labels/train-shading").artefact(Workspace(workspace)).status() == "missing"


# ------------------------------------------------------------------------------- nothing inherited
def networks() -> set[str]:
    """Names of the networks that are in memory."""
    gc.collect()
    kinds = (UNet2DConditionModel, AutoencoderKL, network_of_labels())
    return {type(found).__name__ for found in gc.get_objects() if issubclass(type(found), kinds)}


def in_order(settings: PipelineConfig, workspace: Path) -> list[Node]:
    """The nodes of a plan, as a run makes them."""
    return [node for _, batch in batches(plan(settings)) for node in in_turn(batch, Workspace(workspace))]


@pytest.mark.e2e
def test_no_network_outlives_its_stage(fresh):
    """What a stage loads stays for those of its artefacts that need the same, and no longer."""
    settings, workspace = config(LABELERS, modalities="albedo"), fresh("here")
    before, seen = networks(), set()
    order = in_order(settings, workspace)
    for number, node in enumerate(order, start=1):
        execute(settings, node.id, str(workspace))
        seen.add(node.stage)
        if not any(node.shares is not None and node.shares == later.shares for later in order[number:]):
            assert networks() <= before, f"{node.id} leaves networks behind"
    assert {"labels", "latents", "train", "predict"} <= seen


def test_another_stage_frees_the_network_of_the_last_one(fresh):
    settings, workspace = config(LABELERS, modalities="albedo"), fresh("here")
    assert "Intrinsics" not in networks()
    execute(settings, "labels/train-albedo", str(workspace))
    assert "Intrinsics" in networks()  # labels/in_domain-albedo needs it, too
    execute(settings, "latents/image", str(workspace))
    assert "Intrinsics" not in networks()


@pytest.mark.parametrize("runner", ["thread", "process"])
def test_one_labeler_labels_all_splits_unless_several_processes_would_keep_theirs(fresh, runner):
    settings, workspace = config(LABELERS, f"runtime.task_runner={runner}", modalities="albedo"), fresh("here")
    network = network_of_labels()
    network.built = 0
    for split in ("in_domain", "train"):
        execute(settings, f"labels/{split}-albedo", str(workspace))
    assert network.built == (1 if runner == "thread" else 2)


def test_a_labeler_that_failed_is_not_used_again(fresh):
    settings, workspace = config(LABELERS, modalities="albedo"), fresh("here")
    network = network_of_labels()
    network.built, network.broken = 0, True
    with pytest.raises(InputError, match="NaN"):
        execute(settings, "labels/in_domain-albedo", str(workspace))
    network.broken = False
    execute(settings, "labels/in_domain-albedo", str(workspace))
    assert network.built == 2


def test_no_adapter_reaches_another_artefact(fresh):
    """Predictions by two adapters on one base, in turn and again: the bytes of each one alone."""
    settings, together = config(ADAPTERS, modalities="normal, depth"), fresh("together")
    nodes = {name: (f"train/{name}-dmp", f"predict/in_domain-{name}-dmp") for name in ("normal", "depth")}
    alone = {}
    for name, needed in nodes.items():
        alone[name] = shards(made(settings, fresh(name), *needed))
        SHARED.clear()
    for force in (False, True):
        for needed in nodes.values():
            for node in needed:
                execute(settings, node, str(together), force=force)
        assert {name: shards(made(settings, together, *needed)) for name, needed in nodes.items()} == alone


def test_a_plan_runs_what_shares_a_network_one_after_another(fresh):
    settings = config(ADAPTERS, modalities="normal, depth")
    order = in_order(settings, fresh("here"))
    shared = [node.shares for node in order if node.shares is not None]
    assert len(set(shared)) == sum(one != other for one, other in pairwise([None, *shared]))


def test_the_language_model_is_freed_with_the_last_captions(tmp_path):
    model = full_size.build("bloomz-7b1", tmp_path)
    generator = f"{{kind: transformers, model: {model}, chat: false, min_new_tokens: 5, max_new_tokens: 60}}"
    settings = config(f"prompts.generator={generator}")
    build_generator.cache_clear()
    for node, kept in (("prompts/in_domain", True), ("prompts/train", False)):
        execute(settings, node, str(tmp_path / "w"))
        assert bool(build_generator.cache_info().currsize) is kept
    build_generator(settings.prompts.generator, "cpu")
    execute(settings, "images/in_domain", str(tmp_path / "w"))
    assert not build_generator.cache_info().currsize
