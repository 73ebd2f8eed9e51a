"""False colours, error maps and contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dmp_core.errors import InputError
from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.modalities.classes import ClassMap
from dmp_core.modalities.pictures import UNKNOWN_COLOUR
from dmp_core.report.figure import readme_figure
from dmp_core.report.pictures import (
    SheetRow,
    SheetStyle,
    colourise_error,
    contact_sheet,
    error_map,
)
from tests.report.rooms import SIZE, room, samples


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_modality_becomes_a_picture(name: str) -> None:
    picture = find_modality(name).colourise(room(0)[name])
    assert picture.shape == (SIZE, SIZE, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 3


def class_map() -> ClassMap:
    modality = find_modality("segmentation")
    assert isinstance(modality, ClassMap)
    return modality


def test_normals_show_right_red_up_green_and_toward_blue() -> None:
    axes = np.eye(3)[None]
    assert find_modality("normal").colourise(axes)[0].tolist() == [[255, 128, 128], [128, 255, 128], [128, 128, 255]]


def test_classes_take_their_palette_colour_and_unlabelled_pixels_grey() -> None:
    palette = class_map().display_palette
    picture = find_modality("segmentation").colourise(np.array([[0, 7, 255, 149]]))
    assert picture[0].tolist() == [
        palette[0].tolist(),
        palette[7].tolist(),
        list(UNKNOWN_COLOUR),
        palette[149].tolist(),
    ]


def test_albedo_and_shading_show_as_they_are() -> None:
    assert find_modality("shading").colourise(np.array([[0.0, 0.5, 1.0, 2.0]]))[0, :, 0].tolist() == [0, 128, 255, 255]
    assert find_modality("albedo").colourise(np.full((1, 1, 3), [0.0, 0.5, 1.0]))[0, 0].tolist() == [0, 128, 255]


def test_depth_shares_one_range_and_marks_invalid_pixels() -> None:
    near, far = (
        find_modality("depth").colourise(np.array([[1.0, 0.0, np.nan]]), span=(1, 5)),
        find_modality("depth").colourise(np.array([[5.0, 9.0]]), span=(1, 5)),
    )
    assert near[0, 1].tolist() == near[0, 2].tolist() == list(UNKNOWN_COLOUR)
    assert far[0, 0].tolist() == far[0, 1].tolist() != near[0, 0].tolist()


def test_the_depth_range_ignores_the_sky_and_the_invalid() -> None:
    depth_range = find_modality("depth").span
    room_and_sky = np.concatenate([np.linspace(1, 5, 98), [80.0, np.inf]])
    near, far = depth_range([room_and_sky[None], np.zeros((2, 2))])
    assert near == pytest.approx(1, abs=0.1)
    assert far <= 4 * 3.1
    assert depth_range([np.zeros((2, 2))]) == (0.0, 1.0)


def test_150_names_and_150_different_colours() -> None:
    assert len(class_map().classes) == 150
    assert class_map().classes[7] == "bed"
    assert len({tuple(colour) for colour in class_map().display_palette.tolist()}) == 150


def test_error_maps_are_in_their_unit() -> None:
    up, right = np.tile([0.0, 1, 0], (2, 2, 1)), np.tile([1.0, 0, 0], (2, 2, 1))
    assert error_map("normal", up, right) == pytest.approx(np.full((2, 2), 90))
    assert np.isnan(error_map("normal", up, np.zeros((2, 2, 3)))).all()
    depth = error_map("depth", np.array([[2.0, 3.0]]), np.array([[4.0, 0.0]]))
    assert depth[0, 0] == pytest.approx(50)
    assert np.isnan(depth[0, 1])
    wrong = error_map("segmentation", np.array([[1, 2, 3]]), np.array([[1, 5, 255]]))
    assert wrong[0, :2].tolist() == [0, 1]
    assert np.isnan(wrong[0, 2])
    assert error_map("albedo", np.zeros((1, 1, 3)), np.array([[[0.3, 0.6, 0.9]]]))[0, 0] == pytest.approx(0.6)


@pytest.mark.parametrize("name", BUILT_IN)
def test_no_error_is_the_darkest_colour(name: str) -> None:
    label = room(1)[name]
    assert colourise_error(name, label, label).max() <= 5
    assert find_modality(name).error_scale.range_text


def test_misfits_are_input_errors() -> None:
    with pytest.raises(InputError, match="differ in shape"):
        error_map("depth", np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(InputError, match="choose one of"):
        find_modality("normals").colourise(np.ones((2, 2, 3)))
    with pytest.raises(InputError, match="expected images"):
        find_modality("albedo").colourise(np.ones((2, 2)))
    with pytest.raises(InputError, match="same number of cells"):
        contact_sheet([SheetRow([None]), SheetRow([None, None])])


def test_long_row_labels_are_set_smaller_and_not_cut() -> None:
    """White remains above and below the ink of the label: nothing runs off its row."""
    style = SheetStyle(cell=100)
    sheet = np.asarray(contact_sheet([SheetRow([None], "InstructPix2Pix (learned)")], style=style))
    strip = sheet[style.gap : style.gap + style.cell, : style.font_size + style.gap]
    inked = np.flatnonzero((strip < 128).all(-1).any(1))
    assert 0 < inked.min() < 30
    assert 70 < inked.max() < style.cell - 1


def test_a_contact_sheet_keeps_class_colours_exact() -> None:
    cell = find_modality("segmentation").colourise(room(2)["segmentation"])
    sheet = np.asarray(contact_sheet([SheetRow([cell, None], "row")], ["a", "b"], style=SheetStyle(cell=100)))
    colours = {tuple(colour) for colour in cell.reshape(-1, 3).tolist()}
    shown = {tuple(colour) for colour in sheet[-100:-6, 30:110].reshape(-1, 3).tolist()}
    assert len(shown) > 2
    assert shown <= colours


def test_the_readme_figure_has_one_row_per_image_and_two_columns_per_modality(tmp_path: Path) -> None:
    shown = {split: samples(split, 3) for split in ("in_domain", "out_of_domain", "arbitrary")}
    figure = readme_figure(shown, tmp_path / "docs" / "figure.png", per_split=2, style=SheetStyle(cell=50))
    assert (tmp_path / "docs" / "figure.png").stat().st_size > 5000
    assert 11 * 54 < figure.width < 11 * 54 + 120
    assert 6 * 54 < figure.height < 6 * 54 + 100
    with pytest.raises(InputError, match="run the predict stage first"):
        readme_figure({"in_domain": []})
