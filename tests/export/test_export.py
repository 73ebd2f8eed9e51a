"""Each format, written from a real dataset, equals it when an independent reader opens it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.path
import numpy as np
import pytest
import yaml
from PIL import Image

from dmp_core.cli import app
from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.export.dataset import open_finished
from dmp_core.export.registry import FORMATS, Options, export
from dmp_core.export.yolo import polygons
from dmp_core.modalities import find_modality
from dmp_core.requests.imports import import_settings
from dmp_core.store import open_dataset
from tests.making import DATA, make
from tests.report.rooms import room

SPLITS = {"train": 4, "in_domain": 2}
FOV = 70.0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rooms with five labels as own images; one image is constant, which a gate leaves out; one has no object."""
    photos, workspace = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("workspace")
    number = 0
    for split, count in SPLITS.items():
        (photos / split).mkdir()
        for index in range(count):
            _room(photos / split / f"{index}", number, empty=number == 1, constant=number == 2)
            number += 1
    base = load_config("smoke", None, ["quality.min_std=0.01"])
    settings, _ = import_settings(base, load_config("smoke"), photos, fit="keep", name="rooms")
    make(workspace, settings, DATA)
    return workspace / "datasets" / "rooms"


def _room(stem: Path, seed: int, empty: bool, constant: bool) -> None:
    made = room(seed)
    made["segmentation"] = np.full_like(made["segmentation"], 255) if empty else made["segmentation"]
    made["depth"][:2] = np.inf  # no surface
    Image.fromarray(made["rgb"] * 0 + 90 if constant else made["rgb"]).save(f"{stem}.png")
    for name in ("normal", "depth", "segmentation", "albedo", "shading"):
        modality = find_modality(name)
        array = made[name].astype(np.uint8 if name == "segmentation" else np.float32)
        Path(f"{stem}.{modality.member}").write_bytes(modality.encode(array))


@pytest.fixture(scope="module")
def truth(dataset: Path) -> dict[str, dict[str, Any]]:
    """Split → key → the sample, by the store's own reader."""
    return {split: {s["__key__"]: s for s in open_dataset(str(dataset / split))} for split in SPLITS}


def write(dataset: Path, name: str, out: Path, **options: Any) -> Path:
    export(open_finished(str(dataset)), name, out, Options(**options))
    return out


def all_samples(truth: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {key: sample for samples in truth.values() for key, sample in samples.items()}


def test_gates_are_honoured_and_samples_without_objects_are_there(truth: dict[str, dict[str, Any]]) -> None:
    assert {split: len(samples) for split, samples in truth.items()} == {"train": 3, "in_domain": 2}
    assert sum((np.asarray(s["seg.png"]) == 255).all() for s in all_samples(truth).values()) == 1
    assert all(np.isinf(sample["depth.npy"]).any() for sample in all_samples(truth).values())


def test_voc(dataset: Path, truth: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    out = write(dataset, "voc", tmp_path / "out")
    assert (out / "labels.txt").read_text().splitlines()[7] == "bed"
    for split, samples in truth.items():
        assert (out / f"ImageSets/Segmentation/{split}.txt").read_text().split() == list(samples)
        for key, sample in samples.items():
            mask = Image.open(out / f"SegmentationClass/{key}.png")
            assert mask.mode == "P"
            np.testing.assert_array_equal(np.asarray(mask), np.asarray(sample["seg.png"]))
            np.testing.assert_array_equal(
                np.asarray(Image.open(out / f"JPEGImages/{key}.png")), np.asarray(sample["png"])
            )


def test_coco(dataset: Path, truth: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    out = write(dataset, "coco", tmp_path / "out")
    for split, samples in truth.items():
        found = coco.COCO(str(out / f"annotations/semantic_{split}.json"))
        assert [image["file_name"] for image in found.imgs.values()] == [f"{key}.png" for key in samples]
        assert found.cats[7]["name"] == "bed"
        for image, sample in zip(found.imgs.values(), samples.values(), strict=True):
            label = np.asarray(sample["seg.png"])
            decoded = np.full(label.shape, 255)
            for annotation in found.imgToAnns[image["id"]]:
                mask = found.annToMask(annotation).astype(bool)
                decoded[mask] = annotation["category_id"]
                assert annotation["area"] == mask.sum()
                left, top, width, height = annotation["bbox"]
                assert mask[top : top + height, left : left + width].sum() == mask.sum()
            np.testing.assert_array_equal(decoded, label)
        panoptic = json.loads((out / f"annotations/panoptic_{split}.json").read_text())
        for annotation, sample in zip(panoptic["annotations"], samples.values(), strict=True):
            rgb = np.asarray(Image.open(out / f"annotations/panoptic_{split}" / annotation["file_name"])).astype(int)
            ids = rgb @ [1, 256, 65536]
            assert {segment["id"] for segment in annotation["segments_info"]} == set(np.unique(ids)) - {0}
            classes = {segment["id"]: segment["category_id"] for segment in annotation["segments_info"]} | {0: 255}
            np.testing.assert_array_equal(np.vectorize(classes.get)(ids), np.asarray(sample["seg.png"]))


@pytest.mark.parametrize("way", ["middles", "coco"])
def test_yolo(way: str, dataset: Path, truth: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    out = write(dataset, "yolo", tmp_path / "out")
    about = yaml.safe_load((out / "data.yaml").read_text())
    assert (about["train"], about["val"], about["names"][7]) == ("images/train", "images/in_domain", "bed")
    for split, samples in truth.items():
        assert sorted(path.stem for path in (out / "labels" / split).iterdir()) == sorted(samples)
        for key, sample in samples.items():
            label = np.asarray(sample["seg.png"])
            read = np.full(label.shape, 255)
            for line in (out / "labels" / split / f"{key}.txt").read_text().splitlines():
                number, *values = line.split()
                points = np.array(values, float).reshape(-1, 2)
                assert points.min() >= 0
                assert points.max() <= 1
                read[filled(points * label.shape[::-1], label.shape, way)] = int(number)
            np.testing.assert_array_equal(read, label)
            image = Image.open(out / "images" / split / f"{key}.png")
            np.testing.assert_array_equal(np.asarray(image), np.asarray(sample["png"]))


def filled(points: np.ndarray, shape: tuple[int, ...], way: str) -> np.ndarray:
    """The pixels of a polygon, by two other programs."""
    if way == "coco":
        mask = pytest.importorskip("pycocotools.mask")
        return mask.decode(mask.frPyObjects([points.ravel().tolist()], *shape))[..., 0].astype(bool)
    rows, columns = np.indices(shape)
    middles = np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5
    return matplotlib.path.Path(points).contains_points(middles).reshape(shape)


def test_polygons_of_any_mask_read_back() -> None:
    """Holes in holes, diagonal neighbours, single pixels, whole images."""
    masks = [np.random.default_rng(seed).random((9, 13)) < share for seed, share in enumerate((0.1, 0.5, 0.9))]
    rings = np.zeros((9, 9), bool)
    rings[1:8, 1:8] ^= True
    rings[2:7, 2:7] ^= True
    rings[3:6, 3:6] ^= True
    for mask in (*masks, rings, np.ones((3, 5), bool), np.eye(6, dtype=bool), np.zeros((2, 2), bool)):
        read = np.zeros(mask.shape, bool)
        for polygon in polygons(mask):
            region = filled(polygon, mask.shape, "middles")
            assert not (read & region).any()
            read |= region
        np.testing.assert_array_equal(read, mask)


@pytest.mark.parametrize("name", ["parquet", "imagefolder"])
def test_croissant(name: str, dataset: Path, truth: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """mlcroissant is in no extra (docs/dependencies.md)."""
    croissant = pytest.importorskip("mlcroissant")
    out = write(dataset, name, tmp_path / "out")
    opened = croissant.Dataset(str(out / "croissant.json"))
    assert opened.metadata.name == "rooms"
    assert {records.name for records in opened.metadata.record_sets} == set(SPLITS)
    for split, samples in truth.items():
        for row, (key, sample) in zip(opened.records(split), samples.items(), strict=True):
            assert row[f"{split}/key"].decode() == key
            assert row[f"{split}/prompt"].decode() == sample["json"]["prompt"]
            if name == "parquet":
                np.testing.assert_array_equal(np.asarray(row[f"{split}/image"]), np.asarray(sample["png"]))
                np.testing.assert_array_equal(np.asarray(row[f"{split}/normal"]), np.asarray(sample["normal.png"]))
                depth = np.array(list(row[f"{split}/depth"]), np.float32).reshape(sample["depth.npy"].shape)
                np.testing.assert_array_equal(depth, sample["depth.npy"].astype(np.float32))
            else:
                assert (out / split / row[f"{split}/normal_file_name"].decode()).is_file()


@pytest.mark.parametrize("name", ["parquet", "imagefolder"])
def test_croissant_states_the_tables(name: str, dataset: Path, tmp_path: Path) -> None:
    out = write(dataset, name, tmp_path / "out")
    about = json.loads((out / "croissant.json").read_text())
    for file in about["distribution"]:
        assert hashlib.sha256((out / file["contentUrl"]).read_bytes()).hexdigest() == file["sha256"]
    assert [records["@id"] for records in about["recordSet"]] == sorted(SPLITS)


def test_parquet(dataset: Path, truth: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    out = write(dataset, "parquet", tmp_path / "out")
    found = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert set(found) == set(SPLITS)
    for split, samples in truth.items():
        for row, (key, sample) in zip(found[split], samples.items(), strict=True):
            assert row["key"] == key
            for column, member in {"image": "png", "normal": "normal.png", "segmentation": "seg.png"}.items():
                np.testing.assert_array_equal(np.asarray(row[column]), np.asarray(sample[member]))
            np.testing.assert_array_equal(np.array(row["depth"], np.float32), sample["depth.npy"].astype(np.float32))
            assert json.loads(row["record"]) == sample["json"]


def test_imagefolder(dataset: Path, truth: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    out = write(dataset, "imagefolder", tmp_path / "out")
    files = {split: str(out / split / "**") for split in SPLITS}
    found = datasets.load_dataset("imagefolder", data_files=files, cache_dir=str(tmp_path / "cache"))
    for split, samples in truth.items():
        for row, (key, sample) in zip(found[split], samples.items(), strict=True):
            assert row["key"] == key
            np.testing.assert_array_equal(np.asarray(row["image"]), np.asarray(sample["png"]))
            np.testing.assert_array_equal(np.asarray(row["albedo"]), np.asarray(sample["albedo.png"]))
            _check_millimetres(np.asarray(row["depth"]), sample["depth.npy"])


def _check_millimetres(codes: np.ndarray, metres: np.ndarray) -> None:
    known = np.isfinite(metres)
    np.testing.assert_allclose(codes[known] / 1000, metres[known], atol=0.0006)
    assert not codes[~known].any()


def test_png16(dataset: Path, truth: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    out = write(dataset, "png16", tmp_path / "out")
    for split, samples in truth.items():
        assert len(list((out / "image" / split).iterdir())) == len(samples)
        for key, sample in samples.items():
            with Image.open(out / "depth" / split / f"{key}.png") as image:
                assert image.text["unit"] == "metres"
                _check_millimetres(np.asarray(image), sample["depth.npy"])


def test_ply(dataset: Path, truth: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    plyfile = pytest.importorskip("plyfile")
    out = write(dataset, "ply", tmp_path / "out", fov=FOV)
    for split, samples in truth.items():
        for key, sample in samples.items():
            depth, rgb = sample["depth.npy"].astype(float), np.asarray(sample["png"])
            vertices = plyfile.PlyData.read(str(out / split / f"{key}.ply"))["vertex"]
            rows, columns = np.nonzero(np.isfinite(depth))
            # Projected by the pinhole camera, every point falls on its pixel.
            scale = depth.shape[1] / 2 / np.tan(np.radians(FOV / 2))
            u = vertices["x"] / -vertices["z"] * scale + depth.shape[1] / 2
            v = -vertices["y"] / -vertices["z"] * scale + depth.shape[0] / 2
            np.testing.assert_allclose(u, columns + 0.5, atol=1e-3)
            np.testing.assert_allclose(v, rows + 0.5, atol=1e-3)
            np.testing.assert_allclose(-vertices["z"], depth[rows, columns], rtol=1e-6)
            np.testing.assert_array_equal(vertices["red"], rgb[rows, columns, 0])
            lengths = np.sqrt(sum(vertices[axis].astype(float) ** 2 for axis in ("nx", "ny", "nz")))
            np.testing.assert_allclose(lengths, 1, atol=1e-3)


def test_a_cloud_needs_a_field_of_view(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="states no field of view; give --fov"):
        write(dataset, "ply", tmp_path / "none")
    assert not list(tmp_path.iterdir())  # nothing is left of what failed


def test_a_renders_field_of_view_is_read(dataset: Path) -> None:
    from dataclasses import replace

    from dmp_core.export.ply import _field_of_view

    sample = next(open_finished(str(dataset)).samples("train"))
    scene = json.dumps({"camera": {"fov_degrees": 61.5}})
    assert _field_of_view(replace(sample, record=dict(sample.record) | {"scene": scene})) == 61.5


# ------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_overwritten(name: str, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_bytes(b"precious")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for out in ("theirs", "link"):
        with pytest.raises(InputError, match="not an empty folder; choose another one"):
            write(dataset, name, tmp_path / out, fov=FOV)
    assert (tmp_path / "theirs" / "file").read_bytes() == b"precious"
    write(dataset, name, tmp_path / "empty", fov=FOV)
    assert any((tmp_path / "empty").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"theirs", "empty", "link"}


def test_the_command_takes_splits(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", str(dataset), "--format", "voc", "--out", str(tmp_path / "out")]
    app([*arguments, "--split", "in_domain"], standalone_mode=False)
    assert "2 samples" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out" / "ImageSets" / "Segmentation").iterdir()] == ["in_domain.txt"]
    for wrong, reason in (
        (["--split", "test"], "--split test: .* has in_domain, train"),
        (["--modality", "depth"], "--modality depth: not class maps; the labels of rooms are normal, depth"),
        (["--modality", "dpeth"], "--modality dpeth: the labels of rooms are normal, .*; did you mean depth"),
        (["--format", "parquet", "--modality", "depth"], "--modality depth: parquet contains all labels; leave it"),
        (["--format", "tar"], "--format tar: unknown; choose one of: voc, coco"),
    ):
        with pytest.raises(InputError, match=reason):
            app([*arguments[:-1], str(tmp_path / "new"), *wrong], standalone_mode=False)
    with pytest.raises(InputError, match="no finished dataset here"):
        open_finished(str(tmp_path))


def test_images_without_labels_have_no_classes_to_write(dataset: Path) -> None:
    bare = replace(open_finished(str(dataset)), modalities=())
    with pytest.raises(InputError, match="this format needs class maps; rooms has no labels, only images"):
        bare.class_map(None)


def test_a_changed_shard_is_found(dataset: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy, copy_function=shutil.copyfile)
    shard = copy / "in_domain" / "shard-000000.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"shard-000000\.tar: unreadable shard"):
        write(copy, "voc", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
