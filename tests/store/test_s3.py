"""A workspace in an S3 bucket (moto's server): the same bytes as in a folder, resumed and locked the same way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmp_core.config import PipelineConfig, load_config
from dmp_core.progress import listening
from dmp_core.requests.parts import dataset_config
from dmp_core.stages import execute, find, plan, statuses
from dmp_core.store import Lock, Workspace, open_dataset
from flows import visible
from flows.pipeline import run_pipeline
from tasks import worth_retrying
from tests.making import make
from tests.timed import TIMED

pytest.importorskip("s3fs", reason="s3fs is not installed (extra s3)")
moto = pytest.importorskip("moto.server", reason="moto's server is not installed (extra dev)")

ROOT = Path(__file__).resolve().parents[2]
TINY = ["modalities=[normal]", "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}", "runtime.workers=1"]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory) -> Iterator[str]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # fetched copies are in ~/.cache/dmp
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        Workspace("s3://dmp").fs.mkdir("dmp")
        yield "s3://dmp"
    server.stop()


def contents(url: str) -> dict[str, bytes]:
    """Bytes by path, without files that contain times and machines."""
    place = Workspace(url)
    found = {path.removeprefix(f"{place.root}/"): place.fs.cat_file(path) for path in place.fs.find(place.root)}
    return {
        name: data
        for name, data in found.items()
        if not name.endswith(TIMED) and "tfevents" not in name and not name.startswith((".scratch/", ".requests/"))
    }


@pytest.mark.e2e
def test_dataset_in_a_bucket_is_the_dataset_in_a_folder(bucket, tmp_path):
    url = f"{bucket}/rooms [1]* #%20"  # not a pattern
    config = dataset_config(load_config("smoke", None, TINY), str(tmp_path), ["bedroom"], 4, name="rooms")
    make(tmp_path, config)
    make(url, config)
    there, here = contents(url), contents(str(tmp_path))
    assert there == here
    assert any(name.endswith(".tar") for name in here)
    assert [sample["__key__"] for sample in open_dataset(f"{url}/datasets/rooms")] == [
        f"train-{number:08d}" for number in range(4)
    ]

    place = Workspace(url)
    shard = next(path for path in place.fs.find(place.root) if "/images/" in path and path.endswith("1.tar"))
    place.fs.rm_file(shard)
    assert statuses(plan(config), place)["images/train"] == "partial"
    assert make(url, config) == ["images/train"]
    assert contents(url) == here
    make(url, config, force=True)
    assert contents(url) == here, "and nothing is left over"
    assert make(url, config) == []


@pytest.mark.e2e
def test_whole_dag_in_a_bucket(bucket, tmp_path):
    config = load_config("smoke", None, ["modalities=[normal]", "runtime={workers: 1, device: cpu}"])
    make(tmp_path, config)
    make(f"{bucket}/dag", config)
    assert contents(f"{bucket}/dag") == contents(str(tmp_path))
    assert set(statuses(plan(config), Workspace(f"{bucket}/dag")).values()) == {"complete"}
    report = Workspace(f"{bucket}/dag/report")
    assert report.fs.exists(f"{report.root}/index.html")


class Loses:
    """A listener that ends the run at a step of one artefact."""

    def __init__(self, name: str, at: int) -> None:
        self.name, self.at = name, at

    def started(self, name: str) -> None: ...

    def advanced(self, name: str, done: int, total: int, message: str) -> None:
        if (name, done) == (self.name, self.at):
            raise KeyboardInterrupt

    def finished(self, name: str, seconds: float, cached: bool) -> None: ...


@pytest.mark.slow
@pytest.mark.e2e
def test_a_flow_in_a_bucket_ends_with_its_report_and_a_lost_training_moves(bucket, monkeypatch, tmp_path):
    shown: list[str] = []
    monkeypatch.setattr(visible, "create_markdown_artifact", lambda text, *_: shown.append(text))
    small = {split: {"keywords": ["bedroom"], "count": 2} for split in ("train", "in_domain")}
    settings = load_config("smoke", None, ["modalities=[normal]", "runtime={workers: 1, device: cpu}", "train.steps=1"])
    config = PipelineConfig.model_validate(settings.model_dump(mode="json") | {"splits": small})
    outputs = run_pipeline(config, f"{bucket}/flow")
    report = outputs[-1]
    assert report.id == "report/smoke"
    assert report.path.startswith(f"{bucket}/flow/reports/")
    assert [text.rpartition("provenance: ")[2] for text in shown] == [f"`{report.path}/index.html`"]

    longer = config.model_copy(update={"train": config.train.model_copy(update={"steps": 6, "checkpoint_every": 2})})
    with listening(Loses("train/normal-dmp", at=5)), pytest.raises(KeyboardInterrupt):
        execute(longer, "train/normal-dmp", f"{bucket}/flow")
    monkeypatch.setenv("HOME", str(tmp_path))  # another machine
    execute(longer, "train/normal-dmp", f"{bucket}/flow")
    place = Workspace(f"{bucket}/flow")
    manifest = find(plan(longer), "train/normal-dmp").artefact(place).published()
    assert (manifest.details["steps"], manifest.details["resumed_at"]) == (6, 4)
    assert not place.fs.find(f"{place.root}/.scratch"), "its checkpoints are removed once it is complete"


def test_a_lock_in_a_bucket_is_created_only_once(bucket):
    place = Workspace(f"{bucket}/locks")
    first, second = Lock(place, "thing"), Lock(place, "thing")
    assert first._create()
    assert not second._create()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()
    assert not place.fs.exists(second.path)


def test_lock_of_a_killed_process_in_a_bucket_is_taken_over(bucket):
    code = (
        "import sys; from dmp_core.store import Lock, Workspace; assert Lock(Workspace(sys.argv[1]), 'k').acquire(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, f"{bucket}/killed"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert holder.stdout.readline()
    lock = Lock(Workspace(f"{bucket}/killed"), "k")
    assert not lock.acquire()
    holder.kill()
    holder.wait()
    with lock:
        assert lock.acquire()


def test_a_lost_connection_is_worth_another_try_and_a_refusal_is_not():
    from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError
    from s3fs.core import S3_RETRYABLE_ERRORS

    lost = (EndpointConnectionError(endpoint_url="http://s3"), ReadTimeoutError(endpoint_url="http://s3"))
    assert all(map(worth_retrying, lost))
    assert all(worth_retrying(kind.__new__(kind)) for kind in S3_RETRYABLE_ERRORS), "as s3fs itself does"
    assert not any(map(worth_retrying, (NoCredentialsError(), ClientError({}, "GetObject"))))
