"""`--force` and other remakes of an artefact: the old one stays until the new one is complete."""

from __future__ import annotations

import fsspec
import pytest

from dmp_core.config import PipelineConfig, load_config
from dmp_core.errors import InputError
from dmp_core.requests.parts import dataset_config
from dmp_core.stages import chunks, execute, find, labels, making, plan, prompts, ready_inputs, statuses
from dmp_core.store import Artefact, Chunk, Workspace
from tests.making import make

TINY = [
    "modalities=[normal]", "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}", "runtime.workers=1",
    "shards.samples_per_shard=2",
]  # fmt: skip
LABELS, DATASET = "labels/train-normal", "shards/rooms/train"


@pytest.fixture(scope="module", params=["local", "memory"])
def made(request, tmp_path_factory) -> tuple[str, PipelineConfig]:
    """A finished dataset, in a workspace whose name is a pattern."""
    folder = tmp_path_factory.mktemp("remake")
    url = str(folder / "w[1] {é} #%20") if request.param == "local" else f"memory://{folder.name}/w[1]"
    config = dataset_config(load_config("smoke", None, TINY), url, ["bedroom"], 4, name="ro*ms [1]")
    make(url, config)
    return url, config


def contents(url: str) -> dict[str, bytes]:
    """Bytes by path; without manifests, which contain times."""
    place = Workspace(url)
    paths = [path for path in place.fs.find(place.root) if not path.endswith("manifest.json")]
    return {path: place.fs.cat_file(path) for path in paths}


def dataset(config: PipelineConfig) -> str:
    return f"shards/{config.dataset}/train"


class Killed(BaseException):
    pass


def killed_at(monkeypatch: pytest.MonkeyPatch, module, name: str, call: int) -> list[int]:
    """Let a function end the stage at this call of it; returns its calls."""
    original, calls = getattr(module, name), []

    def counted(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_a_forced_artefact_stays_until_the_new_one_is_complete(made, monkeypatch):
    url, config = made
    place, before = Workspace(url), contents(url)
    out = find(plan(config), LABELS).artefact(place)
    first = out.manifest()
    with monkeypatch.context() as patch:
        killed_at(patch, labels, "_encoded", 4)
        with pytest.raises(Killed):
            execute(config, LABELS, url, force=True)
    assert out.manifest() == first
    assert out.verify() == []
    assert before.items() <= contents(url).items()
    assert set(statuses(plan(config), place).values()) == {"complete"}
    assert execute(config, LABELS, url).cached

    calls = killed_at(monkeypatch, labels, "_encoded", 99)
    assert not execute(config, LABELS, url, force=True).cached
    assert len(calls) == 2, "the first shard was made before the kill"
    assert contents(url) == before, "and nothing is left over"
    assert set(statuses(plan(config), place).values()) == {"complete"}


def test_a_damaged_input_takes_nothing(made):
    url, config = made
    place = Workspace(url)
    source = find(plan(config), "images/train").artefact(place)
    shard, whole = source.file("shard-000001.tar"), source.read_bytes("shard-000001.tar")
    place.fs.pipe_file(shard, whole[:600] + b"\0" + whole[601:])
    try:
        with pytest.raises(InputError, match=r"shard-000001\.tar"):
            execute(config, LABELS, url, force=True)
        assert find(plan(config), LABELS).artefact(place).verify() == []
    finally:
        place.fs.pipe_file(shard, whole)
    execute(config, LABELS, url, force=True)


@pytest.mark.parametrize("moved", [False, True])
def test_a_run_that_is_killed_before_the_exchange_loses_nothing(made, monkeypatch, moved):
    url, config = made
    place, before = Workspace(url), contents(url)
    out = find(plan(config), LABELS).artefact(place)
    with monkeypatch.context() as patch:
        killed_at(patch, Artefact, "take_place", 1)
        with pytest.raises(Killed):
            execute(config, LABELS, url, force=True)
    assert out.status() == "complete"
    if moved:  # killed between the two renames, or in an object store before the first file was copied
        fsspec.filesystem("file").rm(out.path, recursive=True) if place.is_local else place.fs.rm_file(
            out.file("manifest.json")
        )
    calls = killed_at(monkeypatch, labels, "_encoded", 99)
    assert not execute(config, LABELS, url, force=not moved).cached
    assert calls == []
    assert contents(url) == before
    assert out.verify() == []


def test_an_unsharded_artefact_stays_as_well(made, monkeypatch):
    url, config = made
    before = contents(url)
    with monkeypatch.context() as patch:
        killed_at(patch, prompts, "make_captions", 1)
        with pytest.raises(Killed):
            execute(config, "prompts/train", url, force=True)
    out = find(plan(config), "prompts/train").artefact(Workspace(url))
    assert out.verify() == []
    assert before.items() <= contents(url).items()
    execute(config, "prompts/train", url, force=True)
    assert out.verify() == []


def test_a_remake_takes_no_shard_that_was_made_from_other_inputs(made, monkeypatch):
    url, config = made
    node = find(plan(config), LABELS)
    out, inputs = node.artefact(Workspace(url)), ready_inputs(node, Workspace(url))
    assert making(node, inputs, out, force=False) == out
    one = making(node, inputs, out, force=True)
    assert one == making(node, inputs, out, force=True) != out
    other = out.again({"images": "0" * 12})
    other.write_bytes("shard-000000.tar", b"of other images")
    execute(config, LABELS, url, force=True)
    assert not out.workspace.fs.exists(other.path)
    assert out.verify() == []


def test_chunks_of_a_forced_artefact_are_made_next_to_it(made):
    url, config = made
    node, place, before = find(plan(config), LABELS), Workspace(url), contents(url)
    out = node.artefact(place)
    beside = making(node, ready_inputs(node, place), out, force=True)
    assert chunks(node, out, 1) == []
    assert chunks(node, beside, 1) == [(0,), (1,)]
    execute(config, LABELS, url, force=True, shards=Chunk([1]))
    assert out.verify() == []
    assert chunks(node, beside, 1) == [(0,)]
    execute(config, LABELS, url, force=True, shards=Chunk([0]))
    assert chunks(node, beside, 1) == [], "and they stay there: the call for the whole finds them"
    assert not execute(config, LABELS, url, force=True).cached
    assert not place.fs.exists(beside.path)
    assert contents(url) == before


def test_a_dataset_stays_while_another_configuration_makes_it(made, monkeypatch):
    """Its folder is the same for both."""
    url, config = made
    values = config.model_dump(mode="json")
    values["shards"]["image_format"] = "jpg"
    jpegs, before = PipelineConfig.model_validate(values), contents(url)
    from dmp_core.stages import shards

    with monkeypatch.context() as patch:
        killed_at(patch, shards, "_merge", 3)
        with pytest.raises(Killed):
            execute(jpegs, dataset(jpegs), url)
    assert before.items() <= contents(url).items()
    assert statuses(plan(config), Workspace(url))[dataset(config)] == "complete"
    assert statuses(plan(jpegs), Workspace(url))[dataset(jpegs)] == "stale"
    execute(jpegs, dataset(jpegs), url)
    assert find(plan(jpegs), dataset(jpegs)).artefact(Workspace(url)).verify() == []
    execute(config, dataset(config), url)
    assert contents(url) == before
