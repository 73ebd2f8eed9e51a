"""Labels of modalities that the configuration defines: found next to images, checked, stored unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_core.dataset.truth import unpack_truth
from dmp_core.errors import InputError
from dmp_core.modalities import find_modality, modality_names
from dmp_core.modalities.settings import ClassesModality, OwnModality, ScalarModality
from dmp_core.runtime import RuntimeConfig
from dmp_core.synthesis.checking import check_folder
from dmp_core.synthesis.folder import fit_array
from dmp_core.synthesis.listing import prompts_table, read_folder
from dmp_core.synthesis.settings import FolderImages
from dmp_core.synthesis.sources import open_source

SIZE = (6, 8)
OWN: dict[str, OwnModality] = {
    "roughness": ScalarModality(),
    "thermal": ScalarModality(range=(-20, 80), unit="°C"),
    "defects": ClassesModality(classes=["none", "scratch", "dent"]),
    "species": ClassesModality(classes=[f"bird {number}" for number in range(300)]),
}
KNOWN = [find_modality(name, OWN.get(name)) for name in (*modality_names(), *OWN)]


def stored_labels(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    celsius = np.where(random.random(SIZE) < 0.2, np.nan, random.uniform(-20, 80, SIZE))
    return {
        "roughness": random.integers(0, 256, SIZE, dtype=np.uint8),
        "thermal": celsius.astype(np.float16),
        "defects": random.choice([0, 1, 2, 255], SIZE).astype(np.uint8),
        "species": random.choice([0, 299, 65535], SIZE).astype(np.uint16),
    }


def write_folder(folder: Path) -> None:
    """Images a and b: two labels next to each, two in folders."""
    for seed, name in enumerate("ab"):
        rgb = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(rgb).save(folder / f"{name}.png")
        labels = stored_labels(seed)
        for word in ("roughness", "species"):
            (folder / word).mkdir(exist_ok=True)
            Image.fromarray(labels[word]).save(folder / word / f"{name}.png")
        Image.fromarray(labels["defects"]).save(folder / f"{name}.defects.png")
        np.save(folder / f"{name}.thermal.npy", labels["thermal"])


def test_they_are_found_and_kept_as_they_are_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path)
    (tmp_path / "a.roughness.pred.png").write_bytes((tmp_path / "a.png").read_bytes())  # of `dmp predict`
    listing = read_folder(tmp_path, modalities=KNOWN)
    assert [image.file for image in listing.images] == ["a.png", "b.png"]
    assert listing.modalities == ("defects", "roughness", "species", "thermal")
    check_folder(listing)
    assert caplog.records == []
    settings = FolderImages(
        folder=str(tmp_path), fit="keep", resolution=None, labels=list(listing.modalities), own_modalities=OWN
    )
    with open_source(settings, RuntimeConfig()) as source:
        samples = list(source.samples(prompts_table(listing, "train", 0).to_dict("records")))
    for seed, sample in enumerate(samples):
        truth = unpack_truth(sample["truth.npz"])
        for name, array in stored_labels(seed).items():
            np.testing.assert_array_equal(truth[name], array)
            modality = find_modality(name, OWN[name])
            np.testing.assert_array_equal(modality.codes(modality.decode(modality.encode(truth[name]))), array)


def test_one_truth_may_be_read_alone(tmp_path: Path) -> None:
    from dmp_core.dataset.truth import pack_truth

    thermal, species = (find_modality(name, OWN[name]) for name in ("thermal", "species"))
    packed = pack_truth(stored_labels(0), [thermal, species])
    assert list(unpack_truth(packed)) == ["thermal", "species"]
    assert list(unpack_truth(packed, ["species", "depth"])) == ["species"]


def test_a_digest_knows_own_labels_and_a_folder_without_them_none(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "a.png")
    plain = read_folder(tmp_path).digest
    assert read_folder(tmp_path, modalities=KNOWN).digest == plain
    Image.fromarray(stored_labels(0)["defects"]).save(tmp_path / "a.defects.png")
    assert read_folder(tmp_path, modalities=KNOWN).digest != plain


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("a.defects.png", np.full(SIZE, 3, np.uint8), "class ids up to 3; own_modalities.defects.classes has 0 to 2"),
        ("a.species.png", np.full(SIZE, 300, np.uint16), "class ids up to 300"),
        ("a.species.png", np.zeros((*SIZE, 3), np.uint8), "expected a grey image of 16 bits"),
        ("a.roughness.png", np.zeros((*SIZE, 3), np.uint8), "roughness: expected an 8-bit L image"),
        ("a.thermal.npy", np.full(SIZE, 90.0), "thermal: values 90 … 90 leave -20"),
        ("a.thermal.npy", np.zeros(SIZE, int), "thermal: expected °C as floats"),
        ("a.thermal.png", np.zeros(SIZE, np.uint8), "a label of thermal is a .npy file; convert it or rename it"),
        ("a.thermal.npy", np.zeros((*SIZE, 1)), "thermal: expected (H, W)"),
        ("a.defects.png", np.zeros((4, 8), np.uint8), "8 × 4 pixels, its image 8 × 6"),
    ],
)
def test_invalid_labels_are_rejected_by_name(tmp_path: Path, name: str, array: np.ndarray, words: str) -> None:
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "a.png")
    if name.endswith("npy"):
        np.save(tmp_path / name, array)
    else:
        Image.fromarray(array).save(tmp_path / name)
    with pytest.raises(InputError) as error:
        check_folder(read_folder(tmp_path, modalities=KNOWN))
    assert str(error.value).startswith(f"{tmp_path}/{name}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_constant_labels_cause_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.thermal.npy", np.full(SIZE, 20.0))
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "a.defects.png")  # a part without any is one like others
    check_folder(read_folder(tmp_path, modalities=KNOWN))
    (found,) = [record.getMessage() for record in caplog.records]
    assert "is the map constant, or in another range than -20 to 80 °C?" in found


def test_ids_of_16_bits_and_values_without_a_label_are_never_averaged() -> None:
    labels = stored_labels(0)
    ids = fit_array(find_modality("species", OWN["species"]), labels["species"], "crop", 12)
    np.testing.assert_array_equal(ids, labels["species"][:, 1:7].repeat(2, axis=0).repeat(2, axis=1))
    kelvin = fit_array(find_modality("thermal", OWN["thermal"]), labels["thermal"], "crop", 12)
    np.testing.assert_array_equal(kelvin, labels["thermal"][:, 1:7].repeat(2, axis=0).repeat(2, axis=1))
