"""The page predicts what `Predictor` predicts, with one base model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_core.app.predicting import Maps, Studio
from dmp_core.errors import InputError
from dmp_core.modalities import BUILT_IN
from dmp_core.requests.predictor import Predictor
from tests.report.rooms import room


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("photo") / "room.png"
    Image.fromarray(room(3, 48)["rgb"]).save(file)
    return file


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio("mini")


@pytest.fixture(scope="module")
def maps(studio: Studio, photo: Path) -> Maps:
    return studio.predict(photo, studio.modalities)


def test_all_modalities_by_default_and_the_same_arrays(studio: Studio, maps: Maps, photo: Path, tmp_path: Path) -> None:
    assert studio.modalities == list(BUILT_IN)
    plain = Predictor.from_preset("mini")(str(photo))
    files = maps.write(tmp_path, "room")
    assert [file.name for file in files] == [f"room.{name}.npy" for name in BUILT_IN]
    for file, (name, array) in zip(files, plain.items(), strict=True):
        np.testing.assert_array_equal(maps.labels[name], array)
        np.testing.assert_array_equal(np.load(file), array)
        assert maps.views[name].shape == (48, 48, 3)


def test_steps_and_adapters_use_the_same_base(studio: Studio, maps: Maps, photo: Path) -> None:
    more = studio.predict(photo, ["depth"], 4)
    assert list(more.labels) == ["depth"]
    assert np.abs(more.labels["depth"] - maps.labels["depth"]).max() > 0
    named = studio.predict(photo, studio.modalities, adapter=" shipped:normal ")
    np.testing.assert_array_equal(named.labels["normal"], maps.labels["normal"])
    assert list(named.labels) == ["normal"]
    assert len(studio.predictor._bases) == 1


def test_relief_and_light_need_their_maps(studio: Studio, maps: Maps, photo: Path) -> None:
    assert maps.relief(60)[:4] == b"glTF"
    assert maps.relit(45, 45).shape == (48, 48, 3)
    assert (maps.relit(0, 45) != maps.relit(180, 45)).any()
    normal = studio.predict(photo, ["normal"])
    assert normal.relief(60) is normal.relit(45, 45) is None


def test_errors_name_what_to_change(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"x\.png: not a readable image"):
        studio.predict(tmp_path / "x.png", ["normal"])
    with pytest.raises(InputError, match="choose at least one modality"):
        studio.predict(tmp_path / "x.png", [])
    with pytest.raises(InputError, match="nowhere"):
        studio.predict(tmp_path / "x.png", ["normal"], adapter="nowhere")
