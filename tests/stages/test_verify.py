"""`dmp verify`: every kind of damage is found, a repair removes it, and the next run makes the same bytes again."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dmp_core.cli import app
from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.stages.verify import Finding, repair, verify_workspace
from dmp_core.store import Workspace, sha256_stream
from tests.making import make
from tests.timed import TIMED

TINY = [
    "modalities=[normal, depth]",
    "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}",
    "runtime.workers=1",
    "train={steps: 2, checkpoint_every: 1}",
]


CONFIG = load_config("smoke", None, TINY)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    workspace = tmp_path_factory.mktemp("verify")
    make(workspace, CONFIG)
    return workspace


@pytest.fixture
def copied(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "workspace [1]"))


def findings(workspace: Path) -> list[Finding]:
    return list(verify_workspace(Workspace(workspace)))


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def outputs(workspace: Path) -> dict[str, bytes]:
    """The content that every rerun must reproduce: all except times."""
    return {
        path.relative_to(workspace).as_posix(): path.read_bytes()
        for path in sorted(workspace.rglob("*"))
        if path.is_file() and path.name not in TIMED and "tensorboard" not in path.parts
    }


@pytest.mark.slow
def test_a_finished_workspace_has_nothing_wrong(made):
    assert findings(made) == []


FLIPPED = [
    "prompts/train-*/prompts.parquet",
    "images/in_domain-*/shard-000000.tar",
    "labels/in_domain-normal-*/shard-000000.tar",
    "quality/train-depth-*/quality.parquet",
    "datasets/smoke/train/shard-000001.tar",
    "latents/image-*/shard-000000.safetensors",
    "adapters/normal-dmp-*/adapter_model.safetensors",
    "predictions/in_domain-depth-dmp-*/shard-000000.tar",
    "evaluations/normal-*/metrics.json",
    "report/index.html",
]


def test_a_flipped_bit_in_any_artefact_is_found_and_its_file_is_made_again(copied, made):
    paths = [path for pattern in FLIPPED for path in copied.glob(pattern)]
    assert len(paths) == len(FLIPPED)
    for path in paths:
        flip_bit(path)
    found = findings(copied)
    assert {finding.path for finding in found if finding.kind == "damaged"} == set(map(str, paths))
    repair(Workspace(copied), found)
    make(copied, CONFIG)
    assert findings(copied) == []
    assert outputs(copied) == outputs(made)


def test_a_lost_file_a_wrong_sidecar_and_a_wrong_index_are_found(copied, made):
    (lost,) = copied.glob("labels/train-depth-*/shard-000001.tar")
    lost.unlink()
    (sidecar,) = copied.glob("images/train-*/shard-000000.json")
    sidecar.write_text(sidecar.read_text().replace('"samples": 2', '"samples": 3'))
    index = copied / "datasets/smoke/train/index.json"
    index.write_text(index.read_text().replace("shard-000001", "shard-000000"))
    found = findings(copied)
    assert {finding.path for finding in found} == {str(lost), str(sidecar), str(index)}
    repair(Workspace(copied), found)
    make(copied, CONFIG)
    assert outputs(copied) == outputs(made)


def rewrite_member(shard: Path, extension: str, data: bytes) -> None:
    """Replace a member of the first sample, and record the shard's new digest: damage that no digest shows."""
    with tarfile.open(shard) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
    name = next(name for name in members if name.endswith(extension))
    with tarfile.open(shard, "w") as archive:
        for known, value in (members | {name: data}).items():
            info = tarfile.TarInfo(known)
            info.size = len(value if known != name else data)
            archive.addfile(info, io.BytesIO(value if known != name else data))
    record = {"bytes": shard.stat().st_size, "sha256": sha256_stream(shard.open("rb"))}
    sidecar, manifest = shard.with_suffix(".json"), shard.with_name("manifest.json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | record))
    stated = json.loads(manifest.read_text())
    stated["files"] = [file | (record if file["name"] == shard.name else {}) for file in stated["files"]]
    manifest.write_text(json.dumps(stated))


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("pattern", "extension", "data", "problem"),
    [
        ("labels/train-normal-*", "normal.png", png(np.zeros((16, 16, 3), np.uint8)), "unit vectors"),
        ("labels/train-normal-*", "normal.png", png(np.full((8, 8, 3), 200, np.uint8)), "8, 8"),
        ("labels/train-normal-*", "normal.png", b"no image", "not a readable PNG"),
        ("labels/train-depth-*", "depth.npy", b"\x93NUMPY", "not a whole .npy file"),
        ("images/train-*", "png", b"", "cannot be read"),
        ("datasets/smoke/train", "depth.npy", b"", "not a whole .npy file"),
    ],
)
def test_a_label_that_was_written_wrongly_is_found_although_its_digest_is_right(
    copied, pattern, extension, data, problem
):
    (folder,) = copied.glob(pattern)
    rewrite_member(folder / "shard-000000.tar", extension, data)
    (found,) = [f for f in findings(copied) if f.path == str(folder / "shard-000000.tar")]
    assert problem in found.problem
    assert "train-00000000" in found.problem or "not a" in found.problem


def test_left_over_files_are_listed_and_unknown_files_stay(copied):
    (images,) = copied.glob("images/train-*")
    old, new = images / ".shard-000000.tar.12345678.tmp", images / ".shard-000001.tar.12345678.tmp"
    surplus, foreign = images / "shard-000007.tar", images / "notes.txt"
    for path in (old, new, surplus, foreign):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    (copied / "images" / "mine").mkdir()
    scratch = copied / ".scratch" / "train" / next(copied.glob("adapters/normal-dmp-*")).name
    scratch.mkdir(parents=True)
    found = {finding.path: finding.kind for finding in findings(copied)}
    assert found == {
        str(old): "left over",
        str(surplus): "left over",
        str(scratch): "left over",
        str(foreign): "unknown",
        str(copied / "images" / "mine"): "unknown",
    }
    removed = repair(Workspace(copied), findings(copied))
    assert set(removed) == {str(old), str(surplus), str(scratch)}
    assert foreign.exists()
    assert new.exists()


def test_an_unfinished_artefact_is_no_damage(copied):
    (manifest,) = copied.glob("images/train-*/manifest.json")
    manifest.unlink()
    (found,) = [finding for finding in findings(copied) if finding.path == str(manifest.parent)]
    assert (found.kind, found.remove) == ("unfinished", ())


def test_the_command_ends_with_2_while_damage_stays_and_repairs_it_on_request(copied):
    run = CliRunner().invoke
    (path,) = copied.glob("prompts/train-*/prompts.parquet")
    flip_bit(path)
    first = run(app, ["verify", str(copied), "--json"])
    assert isinstance(first.exception, InputError)
    assert "--repair" in str(first.exception)
    assert [finding["path"] for finding in json.loads(first.stdout)["findings"]] == [str(path)]
    second = run(app, ["verify", str(copied), "--repair"])
    assert second.exit_code == 0
    assert not path.exists()
