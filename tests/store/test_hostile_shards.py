"""Untrusted shards: content that could write elsewhere, run code or fill the memory is a one-line error."""

from __future__ import annotations

import io
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmp_core.dataset.truth import unpack_truth
from dmp_core.errors import InputError
from dmp_core.modalities.files import png_bytes
from dmp_core.stages.registry import kind_of
from dmp_core.store import (
    Artefact,
    FileRecord,
    Manifest,
    Sample,
    Workspace,
    open_dataset,
    plan_shards,
    read_artefact,
    write_shards,
)
from dmp_core.store.members import decode_member, read_npy


def entry(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes], **options: Any) -> Path:
    with tarfile.open(path, "w", **options) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return path


SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(10**15)}
HOSTILE = {
    "absolute": entry("/etc/a.txt"),
    "parent": entry("../a.txt"),
    "parent inside": entry("a/../../b.txt"),
    "symbolic link": entry("a.txt", b"", tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": entry("b.txt", b"", tarfile.LNKTYPE, linkname="a.txt"),
    "device": entry("a.txt", b"", tarfile.CHRTYPE, devmajor=1, devminor=5),
    "pipe": entry("a.txt", b"", tarfile.FIFOTYPE),
    "sparse": entry("a.txt", b"1\n0\n1000000000000000\n" + bytes(491), pax_headers=SPARSE),
    "own entry": entry("a.__key__"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_members_that_are_no_plain_files_of_the_shard_are_refused(name: str, tmp_path: Path) -> None:
    tar(tmp_path / "bad.tar", entry("a.json", b"{}"), HOSTILE[name])
    with pytest.raises(InputError, match=r"^[^\n]*bad\.tar: unreadable shard[^\n]*$"):
        list(open_dataset(str(tmp_path)))


@pytest.mark.parametrize("second", ["a.txt", "a.TXT", "other"])
def test_a_member_or_key_that_comes_twice_is_refused(second: str, tmp_path: Path) -> None:
    more = [entry("b.txt"), entry("a.json", b"{}")] if second == "other" else [entry(second)]
    tar(tmp_path / "bad.tar", entry("a.txt"), *more)
    with pytest.raises(InputError, match=r"bad\.tar: unreadable shard"):
        list(open_dataset(str(tmp_path)))


def test_a_tar_as_other_programs_write_it_is_read(tmp_path: Path) -> None:
    folder = entry("./rooms", b"", tarfile.DIRTYPE)
    tar(tmp_path / "a.tar", folder, entry("./rooms/v1.x/a.txt", b"1"), entry("./README", b"2"), entry("./b.txt", b"3"))
    assert [sample["txt"] for sample in open_dataset(str(tmp_path))] == [b"1", b"3"]


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.marker, "run")


@pytest.mark.parametrize("suffix", ["pyd", "pickle", "pkl", "pth", "pt", "bin", "npy", "npz", "json"])
def test_no_member_is_ever_unpickled(suffix: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    data = pickle.dumps(Bomb(marker))
    if suffix == "npy":
        np.save(buffer := io.BytesIO(), np.array([Bomb(marker)]), allow_pickle=True)
        data = buffer.getvalue()
    tar(tmp_path / "a.tar", entry(f"a.{suffix}", data))
    if suffix in ("npy", "json"):
        with pytest.raises(InputError, match=rf"a\.tar: a\.{suffix}: "):
            list(open_dataset(str(tmp_path)))
    else:
        assert [sample[suffix] for sample in open_dataset(str(tmp_path))] == [data]
    assert not marker.exists()


@pytest.mark.parametrize("document", ["README.md", "docs/security.md"])
def test_the_documented_way_to_open_a_foreign_tar_unpickles_nothing(document: str, tmp_path: Path) -> None:
    marker, image = tmp_path / "marker", png_bytes(np.zeros((1, 1, 3), np.uint8))
    whole = {"png": image, "normal.png": image, "json": b'{"prompt": "a room"}'}
    np.save(buffer := io.BytesIO(), np.zeros((1, 1), np.float16))
    bombs = {suffix: pickle.dumps(Bomb(marker)) for suffix in ("pyd", "pickle", "pth", "pt", "pkl.gz")}
    members = {**whole, "depth.npy": buffer.getvalue(), **bombs}
    text = (Path(__file__).resolve().parents[2] / document).read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "WebDataset(" in block)
    shard = tmp_path / re.findall(r'WebDataset\("(.*?)"', code)[0]
    shard.parent.mkdir(parents=True, exist_ok=True)
    tar(shard, *(entry(f"a.{suffix}", data) for suffix, data in members.items()))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not marker.exists()
    run_them = re.sub(r"\.decode\(.*?\):", '.decode("pil"):', code)  # else this would show nothing
    subprocess.run([sys.executable, "-c", run_them], cwd=tmp_path, capture_output=True)
    assert marker.exists()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def postscript() -> bytes:
    Image.new("RGB", (2, 2)).save(buffer := io.BytesIO(), "EPS")
    return buffer.getvalue()


BOMBS = {
    "png of 10 gigapixels": ("png", png(100_000, 100_000)),
    "png of 100 megapixels": ("normal.png", png(10_000, 10_000)),
    "png whose text inflates": ("png", png(2, 2, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 * 2**20), 9)))),
    "png that is cut": ("png", png(4, 4)[:40]),
    "another format": ("png", postscript()),
    "npy of a petabyte": ("npy", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (125000000000000,)}")),
    "npy of more than 64 bits": ("npy", npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {(2**40, 2**40)}}}")),
    "npy of negative size": ("npy", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}", bytes(8))),
    "npy of objects": ("npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", bytes(8))),
    "npy that is no header": ("npy", npy("{'descr': [('a', ")),
    "npy of a later version": ("npy", b"\x93NUMPY\x09\x00" + bytes(200)),
    "deep json": ("json", b"[" * 100_000),
    "json that is none": ("json", b"{'a': 1}"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_one_line_and_takes_neither_memory_nor_time(name: str, tmp_path: Path) -> None:
    suffix, data = BOMBS[name]
    tar(tmp_path / "bad.tar", entry(f"a.{suffix}", data))
    tracemalloc.start()
    begun = time.monotonic()
    with pytest.raises(InputError, match=rf"bad\.tar: a\.{suffix}: ") as raised:
        list(open_dataset(str(tmp_path)))
    assert time.monotonic() - begun < 5
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert "\n" not in str(raised.value)


def test_truth_that_inflates_without_end_is_refused() -> None:
    def packed(data: bytes, claimed: int | None = None) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("depth.npy", data)
            if claimed is not None:
                archive.NameToInfo["depth.npy"].file_size = claimed
        return buffer.getvalue()

    whole = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}", bytes(16))
    assert unpack_truth(packed(whole))["depth"].shape == (2, 2)
    for data in (packed(whole, 2**31), packed(whole + bytes(2**24)), packed(whole, 3), packed(whole)[:-30], b"", b"PK"):
        with pytest.raises(InputError, match=r"truth\.npz: unreadable"):
            unpack_truth(data)


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8", "int64", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (2, 3, 1)])
def test_whole_arrays_are_read(dtype: str, shape: tuple[int, ...]) -> None:
    for order in "CF":
        array = np.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape), dtype, order=order)
        np.save(buffer := io.BytesIO(), array)
        np.testing.assert_array_equal(read_npy(buffer.getvalue()), array)
        np.testing.assert_array_equal(decode_member("depth.npy", buffer.getvalue()), array)


# -------------------------------------------------------------------------------- swapped shards
KEYS = [f"train-{index:08d}" for index in range(6)]


@pytest.fixture
def out(tmp_path: Path) -> Artefact:
    return kind_of("images").artefact(Workspace(str(tmp_path)), "train", "0" * 12)


def made(plan: Any) -> list[Sample]:
    return [{"__key__": key, "txt": key.encode()} for key in plan.keys]


def publish(out: Artefact, files: list[FileRecord]) -> None:
    manifest = Manifest(
        stage=out.stage, stage_version=1, name=out.name, fingerprint=out.fingerprint, config={}, inputs={},
        files=files, samples=len(KEYS), seconds=0.0, created="now",
    )  # fmt: skip
    out.write_bytes("manifest.json", manifest.model_dump_json().encode())


def swap(out: Artefact) -> None:
    """The first shard and its sidecar under the second's name."""
    for suffix in ("tar", "json"):
        out.write_bytes(f"shard-000001.{suffix}", out.read_bytes(f"shard-000000.{suffix}"))


def test_a_run_makes_a_shard_again_that_has_anothers_name(out: Artefact) -> None:
    plans = plan_shards(KEYS, 2)
    write_shards(out, plans, made)
    swap(out)
    publish(out, write_shards(out, plans, made))
    assert [sample["__key__"] for sample in read_artefact(out)] == KEYS


def test_a_manifest_that_lists_one_shard_twice_is_refused(out: Artefact) -> None:
    records = write_shards(out, plan_shards(KEYS, 2), made)
    publish(out, [records[0], records[0], records[2]])
    with pytest.raises(InputError, match=r"manifest\.json: lists shard-000000\.tar with train-00000000 as shard 1"):
        list(read_artefact(out))


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, r"manifest\.json: lists shard-000001\.tar with train-00000000 as shard 1"),
        ({"first_key": KEYS[2], "last_key": KEYS[3]}, r"shard-000001\.tar: holds other samples than train-00000002"),
    ],
)
def test_a_shard_with_anothers_keys_is_refused(out: Artefact, record: dict[str, str], said: str) -> None:
    records = write_shards(out, plan_shards(KEYS, 2), made)
    swap(out)
    publish(out, [records[0], records[0].model_copy(update={"name": "shard-000001.tar", **record}), records[2]])
    with pytest.raises(InputError, match=said):
        list(read_artefact(out))
