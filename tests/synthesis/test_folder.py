"""Your own images: files of every kind are decoded correctly, labels stay on their pixels, faults are named."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import unicodedata
import zlib
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_core.config import load_config
from dmp_core.dataset.settings import SplitConfig
from dmp_core.errors import InputError
from dmp_core.modalities import find_modality
from dmp_core.stages.prompts import FolderPromptsStage
from dmp_core.synthesis.checking import check_folder
from dmp_core.synthesis.folder import decode_image, fit_array, open_rgb, read_label
from dmp_core.synthesis.listing import prompts_table, read_folder
from dmp_core.synthesis.own_images import LabelFile, Listing, OwnImage

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
# Meaning of the stored rows and columns in the EXIF standard, by orientation.
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


def png(width: int, height: int, *, bits: int, kind: int, rows: bytes, more: bytes = b"") -> bytes:
    """A PNG by the standard alone. kind: 0 grey, 2 colour; rows: packed, each after its filter byte."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write(path: Path, rgb: np.ndarray = RGB) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path)
    return path


def write_label(path: Path, task: str, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(find_modality(task).encode(array))


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


@pytest.mark.parametrize("orientation", TURNS)
def test_tags_that_fit_no_standard_do_not_keep_a_photo_from_being_turned(tmp_path, orientation):
    def tag(number: int, kind: int, value: bytes) -> bytes:
        return struct.pack("<HHI", number, kind, 1) + value

    # StripOffsets as a fraction: Pillow reads it, and fails when it writes it.
    tags = tag(0x0112, 3, bytes([orientation, 0, 0, 0])) + tag(0x0111, 5, b"\x08\0\0\0")
    exif = b"II*\0\x08\0\0\0\x02\0" + tags + bytes(4)
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(RGB), "PNG", exif=exif))
    check_folder(read_folder(tmp_path))
    np.testing.assert_array_equal(open_rgb(tmp_path / "a.png", "a.png"), TURNS[orientation](RGB))


def test_a_photo_with_damaged_exif_is_shown_as_it_is_stored():
    data = encoded(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    np.testing.assert_array_equal(decode_image(data, "a.png"), RGB)


@pytest.mark.parametrize(("bits", "rows"), [(1, 0b01010101), (2, 0b00011011), (4, 0x3F), (16, None)])
def test_the_level_of_grey_that_a_png_calls_transparent_becomes_white(bits, rows):
    if rows is None:
        levels = np.array([0, 1, 257, 65534], ">u2")
        row, clear, grey = levels.tobytes(), 257, [0, 0, 255, 255]
    else:
        codes = [rows >> shift & (2**bits - 1) for shift in range(8 - bits, -1, -bits)]
        row, clear = bytes([rows]), codes[0]
        grey = [255 if code == clear else round(code * 255 / (2**bits - 1)) for code in codes]
    data = png(len(grey), 1, bits=bits, kind=0, rows=b"\0" + row, more=chunk(b"tRNS", struct.pack(">H", clear)))
    assert decode_image(data, "a.png")[0, :, 0].tolist() == grey


def test_the_16_bit_colour_that_a_png_calls_transparent_becomes_white():
    row = np.array([[513, 0, 0], [0, 513, 0]], ">u2").tobytes()
    data = png(2, 1, bits=16, kind=2, rows=b"\0" + row, more=chunk(b"tRNS", struct.pack(">HHH", 0, 513, 0)))
    assert decode_image(data, "a.png")[0].tolist() == [[2, 0, 0], [255, 255, 255]]


def test_files_that_cannot_become_rgb_are_one_line(tmp_path):
    Image.fromarray(RGB[..., 0].astype(np.float32)).save(tmp_path / "a.tif")
    assert refusal(tmp_path).startswith(f"{tmp_path}/a.tif: not a readable image (floating-point pixels; save it with")


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


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_class_ids_of_few_bits_are_taken_as_they_are_stored(bits):
    ids = np.arange(16).reshape(2, 8) % 2**bits
    packed = np.packbits((ids[..., None] >> np.arange(bits)[::-1] & 1).reshape(2, -1).astype(np.uint8), axis=1)
    data = png(8, 2, bits=bits, kind=0, rows=b"".join(b"\0" + row.tobytes() for row in packed))
    found = read_label("segmentation", "a.png", data)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, ids)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_depth_may_have_any_byte_order_and_precision():
    metres = np.array([[0.5, 2.0], [3.0, 4.25]])
    for kind in ("<f2", ">f2", ">f4", "<f8", ">f8", "g"):
        np.testing.assert_array_equal(read_label("depth", "a.npy", npy(metres.astype(kind))), metres, err_msg=kind)
    np.testing.assert_array_equal(read_label("depth", "a.npy", npy(np.asfortranarray(metres))), metres)
    assert (read_label("depth", "a.npy", npy(np.full((2, 2), np.nan))) == 0).all()


def archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, depth=np.ones((2, 2)))
    return buffer.getvalue()


def header(shape: str, kind: str = "'<f4'") -> bytes:
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode() + bytes(64)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (archive(), "an .npz archive called .npy"),
        (header("(100000, 800)"), "ends before the 100000 × 800 values"),
        (header("(1000000000000, 8)"), "more than 89 million pixels"),
        (header("(-4, -4)"), "expected (H, W), found shape (-4, -4)"),
        (header("(4, 4, 1)"), "expected (H, W)"),
        (header("(0, 4)"), "expected (H, W)"),
        (header("(4, 4)", "'|O'"), "expected metres as floats"),
        (header("(4, 4)", "'<c8'"), "expected metres as floats"),
        (header("(4, 4)", "[('z', '<f4')]"), "expected metres as floats"),
        (header("(4, 4)", "('<f4', (2,))"), "a.npy: "),
        (header("(4, 4)", "(" * 500), "not readable"),
        (npy(np.ones((4, 4), np.float32))[:-8], "ends before the 4 × 4 values"),
        (npy(np.ones((4, 4), np.int16)), "found int16"),
        (b"", "not readable"),
    ],
)
def test_arrays_that_cannot_be_depth_are_one_line(data, words):
    with pytest.raises(InputError, match=r"^a\.npy: ") as error:
        read_label("depth", "a.npy", data)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


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


def test_labels_are_found_next_to_images_and_in_folders(tmp_path):
    write(tmp_path / "room" / "a.jpg")
    depth = np.ones((6, 8), np.float32)
    write_label(tmp_path / "room" / "a.depth.npy", "depth", depth)
    write_label(tmp_path / "room" / "albedo" / "a.png", "albedo", RGB)
    write_label(tmp_path / "seg" / "room" / "a.png", "segmentation", np.zeros((6, 8), np.uint8))
    listing = read_folder(tmp_path)
    check_folder(listing)
    assert listing.modalities == ("depth", "segmentation", "albedo")
    assert [image.file for image in listing.images] == ["room/a.jpg"]


# -------------------------------------------------------------------------------------- listing
def test_names_that_are_nearly_those_of_labels_are_said(tmp_path, caplog):
    def named(*files):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name in ("a.png", *files):
            (folder / name).write_bytes(b"") if name.endswith(".npy") else write(folder / name)
        caplog.clear()
        listing = read_folder(folder)
        return listing, [record.getMessage().removeprefix(f"{folder}/") for record in caplog.records]

    for wrong in ("a.nromal.png", "a_normal.png", "a-normals.png", "a.Normal.png"):
        listing, said = named(wrong)
        assert said == [f"{wrong}: not read as a label; if it is one, call it a.normal.png"]
        assert [one.file for one in listing.images] == sorted(["a.png", wrong])
    assert named("a.dpeth.npy")[1] == ["a.dpeth.npy: not read as a label; if it is one, call it a.depth.npy"]
    for right in ("a.normal.png", "a.v2.png", "b_normal.png", "a_morning.png"):
        assert named(right)[1] == []


def test_captions_and_keywords(tmp_path):
    folder = tmp_path / "mine"
    for name in ("living_room/a.png", "b.png", "c.png", "d.png"):
        write(folder / name)
    entry = '{"file_name": "b.png", "text": "a  red\\nchair", "keyword": "chair"}'
    (folder / "metadata.jsonl").write_text(entry + '\n\n{"file_name": "living_room/a.png", "more": 1}\n')
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


def test_invalid_names_are_rejected(tmp_path):
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
        "metadata.jsonl, line 1: names gone.png",
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
        _ = read_folder(tmp_path).modalities


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_that_would_exhaust_the_memory_is_refused(tmp_path):
    for name, width in (("large", 10_000), ("huge", 20_000)):
        (tmp_path / f"{name}.png").write_bytes(png(width, 10_000, bits=8, kind=0, rows=b""))
    message = refusal(tmp_path)
    assert "large.png: 10000 × 10000 pixels, more than 89 million; scale it down" in message
    assert "huge.png: more than 179 million pixels; scale it down" in message
    with pytest.raises(InputError, match=r"^a: 8 × 6 pixels, more than 0 million"):
        open_rgb(io.BytesIO(encoded(Image.fromarray(RGB))), "a", most_pixels=47)
    with pytest.raises(InputError, match="use fit: crop"):
        fit_array("image", np.zeros((1, 90_000, 3), np.uint8), "shorter_side", 64)


def test_a_file_that_changes_during_the_run_is_not_taken(tmp_path):
    from dmp_core.runtime import RuntimeConfig
    from dmp_core.synthesis.settings import FolderImages
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
        with pytest.raises(InputError, match=r"a\.png: changed or removed"):
            list(source.samples(rows))


def test_all_files_that_fail_are_named_together(tmp_path):
    for name in ("fine", "cut", "text", "labelled"):
        write(tmp_path / f"{name}.png", RGB.repeat(8, axis=0))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-400])  # the header is whole
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "labelled.depth.npy").write_bytes(b"no array")
    (tmp_path / "fine.txt").write_bytes(b"caf\xe9")
    (tmp_path / "metadata.jsonl").write_text("{")
    with pytest.raises(InputError) as error:
        read_folder(tmp_path)
    named = [Path(line.partition(":")[0].partition(",")[0]).name for line in str(error.value).splitlines()]
    assert named == ["cut.png", "fine.txt", "labelled.depth.npy", "metadata.jsonl", "text.png"]


# ------------------------------------------------------------------------------ as others save it
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_captions_are_read_as_their_writers_saved_them(tmp_path, coding, end):
    for name in "abcd":
        write(tmp_path / f"{name}.png")
    lines = [
        '{"file_name": "a.png", "text": "a red\u2028chair\x85, caf\u00e9"}',
        '{"file_name": ".\\\\b.png", "caption": "zwei St\u00fchle"}',
    ]
    (tmp_path / "metadata.jsonl").write_bytes((end.join(lines) + end).encode(coding))
    (tmp_path / "c.txt").write_bytes(f"two{end}lamps{end}".encode(coding))
    prompts = list(prompts_table(read_folder(tmp_path), "arbitrary", 0)["prompt"])
    assert prompts == ["a red chair , café", "zwei Stühle", "two lamps", ""]


def test_names_match_however_their_accents_are_composed(tmp_path):
    for form in ("NFC", "NFD"):
        folder, other = tmp_path / form, "NFD" if form == "NFC" else "NFC"
        for name in ("Küche", "Büro"):
            write(folder / f"{unicodedata.normalize(form, name)}.png")
        depth = folder / unicodedata.normalize(other, "Küche.depth.npy")
        write_label(depth, "depth", np.ones((6, 8), np.float32))
        entry = {"file_name": unicodedata.normalize(other, "Büro.png"), "text": "an office"}
        (folder / "metadata.jsonl").write_text(json.dumps(entry, ensure_ascii=False))
        (folder / unicodedata.normalize(other, "Küche.txt")).write_text("a kitchen")
        images = read_folder(folder).images
        assert [image.prompt for image in images] == ["an office", "a kitchen"]
        assert [len(image.labels) for image in images] == [0, 1]


def test_one_name_composed_in_two_ways_is_two_images(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    write(tmp_path / f"{composed}.png")
    write(tmp_path / f"{decomposed}.png", 255 - RGB)
    (tmp_path / f"{composed}.txt").write_text("one")
    (tmp_path / f"{decomposed}.txt").write_text("two")
    assert [image.prompt for image in read_folder(tmp_path).images] == ["two", "one"]


def test_names_that_are_not_text_are_one_clear_error(tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / os.fsdecode(b"notes\xff.pdf")).write_text("left out")
    assert read_folder(tmp_path).ignored == ("notes\\xff.pdf",)
    write(tmp_path / "more" / os.fsdecode(b"caf\xe9.png"))
    assert refusal(tmp_path) == f"{tmp_path}/more/caf\\xe9.png: its name is not UTF-8; rename it"
    with pytest.raises(InputError, match="the folder's name is not UTF-8"):
        read_folder(tmp_path / os.fsdecode(b"caf\xe9"))
    (tmp_path / "more").joinpath(os.fsdecode(b"caf\xe9.png")).unlink()
    (tmp_path / "b\n\x1b[31m.png").write_text("")
    assert len(refusal(tmp_path).splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            '{"file_name": "a.png", "text": "one"}\n\n{"file_name": "./a.png", "text": "two"}',
            "line 3: ./a.png again, after",
        ),
        ('{"file_name": "a.png", "text": "\\ud83d"}', "line 1: text: holds half of a surrogate pair"),
        ('{"file_name": "a.png", "text": ' + "[" * 100_000, "line 1: nested too deeply"),
        ('{"file_name": "a.png", "text": ' + "9" * 10_000 + "}", "line 1: not JSON"),
        ('{"file_name": "a.png", "text": [' + "7, " * 5000 + "7]}", "line 1: text: expected text, found [7, 7"),
        ('{"file_name": "\\ud83d.png"}', "line 1: names \\ud83d.png"),
        ("{\0}", "metadata.jsonl: not a text file"),
    ],
)
def test_invalid_metadata_is_one_line(tmp_path, line, words):
    write(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(line)
    message = refusal(tmp_path)
    assert words in message
    assert len(message) < 500
    assert "\n" not in message


def test_two_lists_that_name_one_image_are_refused(tmp_path):
    write(tmp_path / "more" / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "more/a.png", "text": "one"}')
    (tmp_path / "more" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "two"}')
    assert f"{tmp_path}/more/metadata.jsonl, line 1: a.png again, after {tmp_path}/metadata.jsonl" in refusal(tmp_path)


# ---------------------------------------------------------------------------------------- folders
def test_linked_folders_are_followed_and_loops_are_named(tmp_path):
    folder, far = tmp_path / "l", tmp_path / "far"
    write(folder / "a.png")
    write(far / "b.png", 255 - RGB)
    write(far / "deep" / "c.png")
    (folder / "more").symlink_to(far)
    (folder / "again").symlink_to(folder)
    (far / "deep" / "back").symlink_to(far)
    (folder / "self").symlink_to("self")
    listing = read_folder(folder)
    assert [image.file for image in listing.images] == ["a.png", "more/b.png", "more/deep/c.png"]
    assert [name.partition(" (")[0] for name in listing.ignored] == ["again", "more/deep/back", "self"]
    assert [image.keyword for image in listing.images] == ["l", "more", "deep"]


def test_links_that_lead_to_each_other_come_to_an_end(tmp_path):
    for name in "abc":
        write(tmp_path / "tree" / name / f"{name}.png")
        for other in {*"abc"} - {name}:
            (tmp_path / "tree" / name / other).symlink_to(tmp_path / "tree" / other)
    assert len(read_folder(tmp_path / "tree" / "a").images) == 5  # a, ab, abc, ac, acb


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / "closed" / "b.png")
    write(tmp_path / "shut.png").chmod(0)
    (tmp_path / "closed").chmod(0)
    code = f"from dmp_core.synthesis.listing import read_folder; read_folder({str(tmp_path)!r})"
    command = [sys.executable, "-c", code]
    if os.geteuid() == 0:  # root without the right to read all
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", *command]
    if shutil.which(command[0]) is None:
        pytest.skip("setpriv is not there, and root reads everything")
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    (tmp_path / "closed").chmod(0o700)
    assert f"{tmp_path}/closed: cannot be listed (Permission denied); give yourself the right" in done.stderr
    assert f"{tmp_path}/shut.png: cannot be read (Permission denied)" in done.stderr


def test_a_class_called_like_a_label_is_explained(tmp_path):
    for name in ("normal/a.png", "normal/b.png", "abnormal/c.png", "depth/d.jpg"):
        write(tmp_path / name)
    assert refusal(tmp_path).splitlines() == [
        f"{tmp_path}/depth/d.jpg: a label of depth is a .npy or .png file; convert it or rename it; if it is an image, "
        "rename the folder depth",
        f"{tmp_path}/normal: by its name, a folder of normal labels, but no image is called like one of its files; "
        "if these are images themselves, call the folder something else",
    ]


@pytest.mark.parametrize("name", ["b.png", "a.txt", "a.depth.npy", "metadata.jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "endless"])
def test_a_special_file_is_rejected_without_opening_it(tmp_path, name, kind):
    write(tmp_path / "a.png")
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(tmp_path):
            server.bind(name)
    else:
        path.symlink_to("/dev/zero" if kind == "endless" else "/dev/null")
    assert refusal(tmp_path) == (
        f"{path}: a pipe, socket or device, not a file; copy the content into a file, or take it away"
    )


def test_files_too_large_for_their_kind_are_not_read(tmp_path):
    write(tmp_path / "a.png")
    for name, size in (("a.txt", 2**21), ("a.depth.npy", 2**40), ("b.png", 2**40), ("metadata.jsonl", 2**40)):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(size)
    assert [line.partition("; ")[2] for line in refusal(tmp_path).splitlines()] == [
        "2,147 MB at most are read", "1 MB at most are read", "2,147 MB at most are read", "268 MB at most are read",
    ]  # fmt: skip


# ------------------------------------------------------------------------------- other units, axes
def vectors(z: float) -> np.ndarray:
    return np.broadcast_to(np.array([0.6, 0, z], np.float32), (6, 8, 3))


def test_labels_in_other_units_or_axes_are_warned_of(tmp_path, caplog):
    for index, name in enumerate("abc"):
        write(tmp_path / f"{name}.png", np.roll(RGB, index))
        write_label(tmp_path / f"{name}.normal.png", "normal", vectors(-0.8 if index else 0.8))
        write_label(tmp_path / f"{name}.depth.npy", "depth", np.full((6, 8), 4000 if index == 2 else 4, np.float32))
        write_label(tmp_path / f"{name}.seg.png", "segmentation", np.zeros((6, 8), np.uint8))
        write_label(tmp_path / f"{name}.shading.png", "shading", np.full((6, 8), 0.5, np.float32))
    check_folder(read_folder(tmp_path))
    found = [record.getMessage().removeprefix(f"{tmp_path}: warning: ") for record in caplog.records]
    assert [line.partition(":")[0] for line in found] == [
        "2 of 3 normal labels look wrong (normal_z -0.801, usual are at least 0)",
        "1 of 3 depth labels look wrong (far 4e+03, usual are at most 1000)",
        "3 of 3 segmentation labels look wrong (classes 1, usual are at least 2)",
        "3 of 3 shading labels look wrong (label_std 0, usual are at least 0.01)",
    ]
    assert "are the axes others? x points right, y up, z towards the viewer" in found[0]
    assert "are they millimetres?" in found[1]
    assert found[1].endswith("(--set quality.max_far=1000 leaves such samples out)")


def test_good_labels_are_not_warned_of(tmp_path, caplog):
    write(tmp_path / "a.png")
    write_label(tmp_path / "a.normal.png", "normal", vectors(0.8))
    write_label(tmp_path / "a.depth.npy", "depth", np.full((6, 8), 4, np.float32))
    check_folder(read_folder(tmp_path))
    assert caplog.records == []


def test_the_digest_is_that_of_one_list_in_json():
    """As folders that were imported by earlier versions have it."""
    labels = (LabelFile(find_modality("depth"), "a.depth.npy", "2" * 64),)
    images = tuple(OwnImage(f"{name}.png", "1" * 64, (4, 4), "é", 'a "room"', labels) for name in "abc")
    for some in (images, images[:1], ()):
        rows = [[i.file, i.sha256, i.keyword, i.prompt, [["depth", "a.depth.npy", "2" * 64]]] for i in some]
        text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False)
        assert Listing(Path(), some).digest == sha256(text.encode()).hexdigest()[:16]


def test_a_folder_is_listed_once_whatever_its_axes():
    """The listing is found again by its modalities, so these must be the same objects in the plan and in the stage."""
    config = load_config("smoke", None, ["labels.normal={kind: exact, axes: opencv}"])
    source = SplitConfig(folder="x")
    stage = FolderPromptsStage(split="s", source=source, digest="", seed=0, file_axes=config.file_axes)
    assert next(m for m in config.known if m.name == "normal").file_axes == "opencv"
    assert [*map(id, config.known)] == [*map(id, stage.modalities)]
