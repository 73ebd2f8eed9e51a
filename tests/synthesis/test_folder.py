"""One's own images: files of every kind decode to what they show, labels stay on their pixels, faults are named."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_core.errors import InputError
from dmp_core.labelers.encoding import encode_label
from dmp_core.synthesis.folder import check_folder, decode_image, fit_array, read_label
from dmp_core.synthesis.listing import prompts_table, read_folder

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
# What the EXIF standard says of the stored rows and columns, by orientation.
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write(path: Path, rgb: np.ndarray = RGB) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path)
    return path


def write_label(path: Path, task: str, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_label(task, array)[1])


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        check_folder(read_folder(folder))
    return str(error.value)


# ------------------------------------------------------------------------------------- decoding
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})])
@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_is_honoured(tmp_path, kind, options, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(encoded(Image.fromarray(RGB), kind, exif=exif, **options))
    shown = TURNS[orientation](RGB)
    np.testing.assert_array_equal(decode_image(path.read_bytes(), path), shown)
    assert read_folder(tmp_path).images[0].size == shown.shape[:2]


def test_every_mode_becomes_8_bit_rgb():
    grey = RGB[..., 0]
    three = np.repeat(grey[..., None], 3, axis=-1)
    alpha = np.zeros((6, 8), dtype=np.uint8)
    alpha[:, :4] = 255
    over_white = np.where(alpha[..., None] > 0, RGB, 255)
    cases = {
        "L": (Image.fromarray(grey), three),
        "16 bits": (Image.fromarray(grey.astype(np.uint16) * 257), three),
        "RGBA": (Image.fromarray(np.dstack([RGB, alpha])), over_white),
        "LA": (
            Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]),
            np.where(alpha[..., None], three, 255),
        ),
        "1": (Image.fromarray(grey > 127), np.where(three > 127, 255, 0)),
        "palette": (Image.fromarray(RGB).quantize(256), RGB),
    }
    for name, (image, expected) in cases.items():
        found = decode_image(encoded(image), name)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected, err_msg=name)
    cmyk = Image.fromarray(np.full((4, 4, 4), [0, 255, 255, 0], dtype=np.uint8), mode="CMYK")
    red = decode_image(encoded(cmyk, "JPEG", quality=100), "cmyk.jpg").mean(axis=(0, 1))
    assert red[0] > 200 > 60 > red[1:].max()


@pytest.mark.parametrize(("kind", "options"), [("TIFF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_the_first_frame_is_taken(kind, options):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode_image(data, "a"), RGB)


# ------------------------------------------------------------------------------------------ fit
def test_crop_takes_the_centre_square_and_labels_follow_their_pixels():
    rgb = np.random.default_rng(1).integers(0, 256, (10, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit_array("image", rgb, "crop", 10), rgb[:, 3:13])
    ids = rgb[..., 0] % 150
    np.testing.assert_array_equal(
        fit_array("segmentation", ids, "crop", 20), ids[:, 3:13].repeat(2, axis=0).repeat(2, axis=1)
    )
    tall = fit_array("image", rgb.swapaxes(0, 1), "shorter_side", 20)
    assert tall.shape == (32, 20, 3)
    assert fit_array("image", rgb, "keep", None) is rgb


def test_a_shrunken_photo_is_averaged_not_picked_at():
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert abs(fit_array("image", stripes, "crop", 8).astype(float) - 127.5).max() < 8


# --------------------------------------------------------------------------------------- labels
def test_depth_comes_as_metres_or_as_millimetres():
    metres = np.array([[0.5, 2.0], [np.nan, 4.25]], dtype=np.float32)
    buffer = io.BytesIO()
    np.save(buffer, metres)
    np.testing.assert_array_equal(read_label("depth", "a.npy", buffer.getvalue()), [[0.5, 2], [0, 4.25]])
    png = encoded(Image.fromarray(np.array([[500, 2000], [0, 4250]], dtype=np.uint16)))
    np.testing.assert_array_equal(read_label("depth", "a.png", png), [[0.5, 2], [0, 4.25]])


def test_class_ids_may_have_a_palette():
    ids = np.array([[0, 7], [149, 255]], dtype=np.uint8)
    image = Image.fromarray(ids)
    image.putpalette(list(range(255, -1, -1)) * 3)
    np.testing.assert_array_equal(read_label("segmentation", "a.png", encoded(image)), ids)


@pytest.mark.parametrize(
    ("task", "name", "array", "words"),
    [
        ("segmentation", "a.png", np.full((4, 4), 180, np.uint8), "class ids up to 180"),
        ("normal", "a.png", np.full((4, 4, 3), 250, np.uint8), "unit vectors"),
        ("normal", "a.png", np.zeros((4, 4), np.uint8), "expected an 8-bit RGB image"),
        ("depth", "a.png", np.zeros((4, 4), np.uint8), "16-bit grey PNG of millimetres"),
        ("shading", "a.png", np.zeros((4, 4, 3), np.uint8), "expected an 8-bit L image"),
    ],
)
def test_labels_in_another_encoding_are_refused_by_name(task, name, array, words):
    with pytest.raises(InputError, match=rf"^a\.png: .*{words}"):
        read_label(task, name, encoded(Image.fromarray(array)))


def test_labels_are_found_beside_and_in_folders(tmp_path):
    write(tmp_path / "room" / "a.jpg")
    depth = np.ones((6, 8), np.float32)
    write_label(tmp_path / "room" / "a.depth.npy", "depth", depth)
    write_label(tmp_path / "room" / "albedo" / "a.png", "albedo", RGB)
    write_label(tmp_path / "seg" / "room" / "a.png", "segmentation", np.zeros((6, 8), np.uint8))
    listing = read_folder(tmp_path)
    check_folder(listing)
    assert listing.tasks == ("depth", "segmentation", "albedo")
    assert [image.file for image in listing.images] == ["room/a.jpg"]


# -------------------------------------------------------------------------------------- listing
def test_captions_and_keywords(tmp_path):
    folder = tmp_path / "mine"
    for name in ("living_room/a.png", "b.png", "c.png", "d.png"):
        write(folder / name)
    told = '{"file_name": "b.png", "text": "a  red\\nchair", "keyword": "chair"}'
    (folder / "metadata.jsonl").write_text(told + '\n\n{"file_name": "living_room/a.png", "more": 1}\n')
    (folder / "c.txt").write_text("two lamps\n")
    (folder / "LICENSE.txt").write_text("free")
    table = prompts_table(read_folder(folder), "arbitrary", 0)
    assert list(table["file"]) == ["b.png", "c.png", "d.png", "living_room/a.png"]
    assert list(table["prompt"]) == ["a red chair", "two lamps", "", ""]
    assert list(table["keyword"]) == ["chair", "mine", "mine", "living_room"]
    assert read_folder(folder).ignored == ("LICENSE.txt",)


def test_keys_and_seeds_stay_when_a_file_is_added_at_the_end(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / "b.png")
    before = prompts_table(read_folder(tmp_path), "arbitrary", 3)
    write(tmp_path / "c.png")
    after = prompts_table(read_folder(tmp_path), "arbitrary", 3)
    assert list(before["key"]) == ["arbitrary-00000000", "arbitrary-00000001"]
    assert before.equals(after.iloc[:2])


def test_the_digest_follows_content_and_nothing_else(tmp_path):
    first, second = tmp_path / "one" / "x", tmp_path / "two" / "x"
    for folder in (first, second):
        write(folder / "a.png")
    os.utime(second / "a.png", (1, 1))
    same = read_folder(first).digest
    assert read_folder(second).digest == same
    (second / "a.txt").write_text("a caption")
    captioned = read_folder(second).digest
    write_label(second / "a.depth.npy", "depth", np.ones((6, 8), np.float32))
    labelled = read_folder(second).digest
    write(second / "a.png", 255 - RGB)
    assert len({same, captioned, labelled, read_folder(second).digest}) == 4


def test_shares_part_the_folder_by_content(tmp_path):
    random = np.random.default_rng(2)
    for index in range(20):
        write(tmp_path / f"{index:02d}.png", random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    write(tmp_path / "again.png", np.array(Image.open(tmp_path / "00.png")))
    held = {image.sha256 for image in read_folder(tmp_path, (0.0, 0.2)).images}
    rest = {image.sha256 for image in read_folder(tmp_path, (0.2, 1.0)).images}
    assert (len(held), len(rest), held & rest) == (4, 16, set())
    assert [image.file for image in read_folder(tmp_path, count=2).images] == ["00.png", "01.png"]


# --------------------------------------------------------------------------------------- faults
def test_every_broken_file_is_named_before_work(tmp_path):
    write(tmp_path / "fine.png")
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    png = encoded(Image.fromarray(RGB.repeat(8, axis=0)))
    (tmp_path / "bent.png").write_bytes(png[:60] + bytes([png[60] ^ 255]) + png[61:])
    write_label(tmp_path / "fine.depth.npy", "depth", np.ones((8, 6), np.float32))
    message = refusal(tmp_path)
    assert "cut.jpg: not a readable image" in message
    assert "bent.png: not a readable image" in message
    assert "fine.depth.npy: 6 × 8 pixels, its image 8 × 6; give both one size (the image is turned" in message
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    message = refusal(tmp_path)
    assert "text.png: not a readable image" in message
    assert "empty.jpg: not a readable image" in message
    assert "0x" not in message


def test_names_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(InputError, match="no image in it; put PNG"):
        read_folder(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_folder(tmp_path / "none")
    write(tmp_path / "a.png")
    write(tmp_path / "a.jpg")
    write(tmp_path / "b.png")
    write(tmp_path / "normal" / "b.jpg")
    write_label(tmp_path / "lost.depth.npy", "depth", np.ones((6, 8), np.float32))
    lines = ['{"file_name": "gone.png"}', "{", "[]", '{"file_name": "b.png", "text": 7}']
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    message = refusal(tmp_path)
    for words in (
        "a.jpg: shares its name, by which labels and captions go, with a.png",
        "normal/b.jpg: a label of normal is a .png file",
        "lost.depth.npy: a label without an image",
        "metadata.jsonl: names gone.png",
        "metadata.jsonl, line 2: not JSON",
        "metadata.jsonl, line 3: write an object with a file_name",
        "metadata.jsonl, line 4: text: expected text, found 7",
    ):
        assert words in message


def test_labels_of_some_images_only_name_the_first_gap(tmp_path):
    for name in "abc":
        write(tmp_path / f"{name}.png")
    write_label(tmp_path / "b.normal.png", "normal", np.full((6, 8, 3), [0.0, 0, 1], np.float32))
    with pytest.raises(InputError, match=r"a\.normal\.png: missing, though 1 of 3 images have their normal"):
        _ = read_folder(tmp_path).tasks


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_that_would_exhaust_the_memory_is_refused(tmp_path, monkeypatch):
    for name, pixels in (("large", 12), ("huge", 40)):
        write(tmp_path / f"{name}.png", np.zeros((pixels, 10, 3), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    message = refusal(tmp_path)
    assert "large.png: more than 0 million pixels; scale it down" in message
    assert "huge.png: more than" in message


def test_a_file_that_changes_during_the_run_is_not_taken(tmp_path):
    from dmp_core.config.stages import FolderImages, RuntimeConfig
    from dmp_core.synthesis.sources import open_source

    write(tmp_path / "a.png")
    rows = prompts_table(read_folder(tmp_path), "arbitrary", 0).to_dict("records")
    settings = FolderImages(folder=str(tmp_path), fit="keep", resolution=None, labels=[])
    with open_source(settings, RuntimeConfig()) as source:
        sample = next(iter(source.samples(rows)))
        record = json.loads(sample["json"])
        assert record["source"] == {"file": "a.png", "sha256": rows[0]["sha256"], "height": 6, "width": 8}
        assert record["generator"] == {"kind": "folder", "fit": "keep", "resolution": None, "labels": []}
        write(tmp_path / "a.png", 255 - RGB)
        with pytest.raises(InputError, match=r"a\.png: changed or gone"):
            list(source.samples(rows))
