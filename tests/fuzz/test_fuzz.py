"""Any bytes in users' files: a valid result or one InputError line, never anything else."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from dmp_core.config import load_config
from dmp_core.config.pipeline import PipelineConfig
from dmp_core.config.presets import dump, preset_names
from dmp_core.errors import InputError
from dmp_core.images import open_rgb
from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.prompts import read_keywords
from dmp_core.resources import manifest_path
from dmp_core.stages.registry import kind_of
from dmp_core.store import Manifest, Workspace
from dmp_core.store.shards import _tar_bytes, read_shard
from dmp_core.synthesis.checking import check_folder, read_label
from dmp_core.synthesis.listing import prompts_table, read_folder
from tests.fuzz.campaign import damaged, fuzz
from tests.report.rooms import room

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns before it raises


def refused(call: Callable[[], object], *, lines: bool = False) -> bool:
    """Whether it raised an InputError, of one line, or one line per file."""
    message = _message(call)
    assert message.isprintable() or lines
    assert len(message) < 20_000
    return bool(message)


def _message(call: Callable[[], object]) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except InputError as error:
        return str(error)
    return ""


@cache
def image_files() -> list[bytes]:
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769).update({0x9003: "2020:01:01 00:00:00", 0xA002: 16})
    modes = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "TIFF": ("1", "L", "RGB", "CMYK", "F", "I;16", "LAB")}
    found = []
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        for mode in modes.get(kind, ("RGB",)):
            for options in ({}, {"exif": exif}, {"compression": "tiff_lzw"} if kind == "TIFF" else {"optimize": True}):
                grey = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
                buffer = io.BytesIO()
                (grey if mode == "I;16" else rgb.convert(mode)).save(buffer, kind, **options)
                found.append(buffer.getvalue())
    return found


def test_images() -> None:
    def check(data: bytes) -> None:
        def load() -> None:
            rgb = open_rgb(io.BytesIO(data), "a.png")
            assert (rgb.dtype, rgb.ndim, rgb.shape[2]) == (np.uint8, 3, 3)

        refused(load)

    fuzz(check, damaged(image_files()), "pictures", 300)


@pytest.mark.parametrize("task", BUILT_IN)
def test_labels(task: str) -> None:
    array = room(0, 16)[task]
    whole = [find_modality(task).encode(array.astype(np.uint8) if task == "segmentation" else array)]
    if task == "depth":
        for kind in ("<f4", ">f8"):
            buffer = io.BytesIO()
            np.save(buffer, array.astype(kind))
            whole.append(buffer.getvalue())
    name = f"a.{find_modality(task).member}"

    def check(data: bytes) -> None:
        refused(lambda: find_modality(task).encode(read_label(task, name, data)))

    fuzz(check, damaged(whole), f"labels-{task}", 200)


def in_folder(**files: bytes) -> None:
    """Import a folder with one image and these files next to it."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in {"a.png": image_files()[4], **files}.items():
            Path(folder, name.replace("_", ".")).write_bytes(data)
        listing = read_folder(folder)
        check_folder(listing)
        prompts_table(listing, "train", 0).to_parquet(io.BytesIO())


def test_metadata_and_captions() -> None:
    lines = [
        '{"file_name": "a.png", "text": "a caf\\u00e9\\u2028 chair", "keyword": "chair"}',
        '{"file_name": "b.png"}',
    ]
    whole = ["\n".join(lines).encode(coding) for coding in ("utf-8", "utf-8-sig", "utf-16")]

    def check(data: bytes) -> None:
        refused(lambda: in_folder(metadata_jsonl=data), lines=True)
        refused(lambda: in_folder(a_txt=data), lines=True)

    fuzz(check, damaged(whole) | st.binary(max_size=40), "text")


def test_keyword_lists() -> None:
    def check(data: bytes) -> None:
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(data)
            refused(lambda: read_keywords(file.name))

    whole = [manifest_path("keywords", "styles.txt").read_bytes(), "Küche\r\n# no\r\nBad".encode("utf-16")]
    fuzz(check, damaged(whole) | st.binary(max_size=40), "text")


def test_shards() -> None:
    samples = [{"__key__": f"train-{i:08d}", "png": image_files()[4], "json": b"{}"} for i in range(2)]

    def check(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "shard-000000.tar").write_bytes(data)
            refused(lambda: list(read_shard(Workspace(folder), f"{folder}/shard-000000.tar")), lines=True)

    fuzz(check, damaged([_tar_bytes(samples)]), "shards", 100)


def test_manifests() -> None:
    manifest = Manifest(
        stage="prompts",
        stage_version=1,
        name="train",
        fingerprint="0123456789ab",
        config={"split": "train", "count": 2},
        inputs={"images": "0123456789ab"},
        files=[{"name": "prompts.parquet", "bytes": 3, "sha256": "0" * 64}],
        samples=2,
        seconds=0.5,
        created="2026-01-01T00:00:00+00:00",
    )

    def check(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            artefact = kind_of("prompts").artefact(Workspace(folder), "train", "0123456789ab")
            Path(artefact.path).mkdir(parents=True)
            Path(artefact.path, "manifest.json").write_bytes(data)
            refused(artefact.status, lines=True)

    deep = b'{"config": ' + b"[" * 5000
    fuzz(check, damaged([manifest.model_dump_json(indent=1).encode(), deep]) | st.binary(max_size=20), "manifests", 100)


def test_configuration_files() -> None:
    whole = [path.read_bytes() for path in sorted(manifest_path("presets").glob("*.yaml"))]
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys() | st.integers(), inner, max_size=3),
        max_leaves=8,
    )
    trees = st.dictionaries(keys(), values, max_size=3).map(lambda tree: json.dumps(tree).encode())

    def check(data: bytes) -> None:
        with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
            Path(file.name).write_bytes(data)
            refused(lambda: dump(load_config("smoke", file.name)), lines=True)

    fuzz(check, damaged(whole) | trees, "configuration", 100)


def keys() -> st.SearchStrategy[str]:
    """Names of settings, at any depth, and a few unknown ones."""

    def names(schema: dict) -> set[str]:
        below = [item for item in schema.values() if isinstance(item, dict)]
        return set(schema.get("properties", {})).union(*map(names, below))

    return st.sampled_from(sorted(names(PipelineConfig.model_json_schema()) | {"extends", "none"}))


def test_overrides() -> None:
    paths = st.lists(keys(), min_size=1, max_size=4).map(".".join)
    scalars = st.sampled_from(
        (
            "1",
            "-1",
            "1e999",
            ".nan",
            "null",
            "[]",
            "{}",
            "{a: 1}",
            "!!int ''",
            "!!timestamp x",
            "2024-99-99",
            "0x",
            "*a",
        )
    )
    texts = st.tuples(paths, scalars | st.text(max_size=10)).map("=".join) | st.text(max_size=20)

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        refused(lambda: dump(load_config("smoke", None, [text])), lines=True)

    fuzz(check, texts.map(lambda text: text.encode("utf-8", "surrogatepass")), "overrides", 100)


def test_anchors_that_refer_to_each_other_are_refused() -> None:
    bomb = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) or '1'}]" for n in range(1, 12)).replace("*a0", "1")
    for text in (bomb, "labels: &a {normal: *a}", "seed: " + "[" * 100 + "]" * 100):
        with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
            Path(file.name).write_text(text)
            assert refused(lambda name=file.name: load_config("smoke", name))


def test_presets_are_valid() -> None:
    for name in preset_names():
        assert not refused(lambda name=name: load_config(name))
