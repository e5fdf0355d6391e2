"""Files that would cost a decoder much memory or time: each is refused in one line, or decoded at a
fraction of its size. `tests/bombs.py` makes them, and measures the large ones."""

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from captioning.data import image_limits
from captioning.data.images import UnreadableImage, open_image
from tests.bombs import (
    chunk,
    encoded,
    giant_jpeg_2000,
    icon,
    one_scan_a_channel,
    tiff,
    with_segments,
)


@pytest.fixture
def small_budget(monkeypatch):
    """10,000 pixels, and Pillow's own limit below that."""
    monkeypatch.setattr(image_limits, "MAX_PIXELS", 10_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_000)


def saved(tmp_path, name, size, mode="RGB", **options):
    Image.new(mode, size).save(tmp_path / name, **options)
    return tmp_path / name


def test_an_image_beyond_the_budget_is_refused(tmp_path, small_budget):
    path = saved(tmp_path, "large.webp", (101, 100))
    with pytest.raises(UnreadableImage, match=r"large.webp is too large .*Scale it down"):
        open_image(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("name", "mode", "most"),
    [("a.png", "RGB", 7_000), ("a.png", "I;16", 3_500), ("a.tif", "F", 3_500)],
)
def test_pixels_that_take_twice_the_memory_count_twice(tmp_path, monkeypatch, name, mode, most):
    monkeypatch.setattr(image_limits, "MAX_PIXELS", 7_000)
    assert open_image(saved(tmp_path, name, (most // 10, 10), mode)).size == (most // 10, 10)
    path = saved(tmp_path, name, (most // 10 + 1, 10), mode)
    message = rf"too large \({most // 10 + 1} x 10 pixels; at most {most:,} are decoded\)"
    with pytest.raises(UnreadableImage, match=message):
        open_image(path)


def test_a_large_jpeg_is_reduced_to_fit_the_budget_beyond_the_limit_of_pillow(
    tmp_path, small_budget
):
    path = saved(tmp_path, "phone.jpg", (700, 600))  # 42 times the budget
    assert open_image(path, at_least=60).size == (88, 75)
    with pytest.raises(UnreadableImage, match=r"too large \(700 x 600 pixels; at most 10,000"):
        open_image(path, at_least=200)


def test_a_whole_jpeg_is_reduced_only_to_fit_the_budget(tmp_path, small_budget):
    assert open_image(saved(tmp_path, "whole.jpg", (100, 100))).size == (100, 100)
    assert open_image(saved(tmp_path, "reduced.jpg", (200, 100))).size == (100, 50)


@pytest.mark.parametrize(("options", "side"), [({}, 100), ({"progressive": True}, 50)])
def test_a_jpeg_of_absurd_size_is_refused_before_it_is_reduced(
    tmp_path, monkeypatch, options, side
):
    monkeypatch.setattr(image_limits, "MAX_JPEG_PIXELS", 10_000)
    monkeypatch.setattr(image_limits, "MAX_COEFFICIENTS", 3_750)  # 1.5 a pixel
    path = saved(tmp_path, "whole.jpg", (side, side), **options)
    assert open_image(path, at_least=1).size == ((side + 7) // 8, (side + 7) // 8)
    path = saved(tmp_path, "absurd.jpg", (side + 1, side), **options)
    with pytest.raises(UnreadableImage, match=f"too large .*at most {side**2:,} are decoded"):
        open_image(path, at_least=1)


def refused(content, reason):
    with pytest.raises(UnreadableImage, match=reason) as info:
        open_image(content)
    assert "\n" not in str(info.value)


def test_a_jpeg_with_a_scan_for_each_channel_is_limited_like_a_progressive_one(monkeypatch):
    monkeypatch.setattr(image_limits, "MAX_COEFFICIENTS", 3 * 64 * 64)
    assert open_image(one_scan_a_channel(64), at_least=1).size == (8, 8)
    refused(one_scan_a_channel(72), r"too large \(72 x 72 pixels; at most 4,096")
    assert open_image(encoded("JPEG", (500, 500)), at_least=1).size == (63, 63)  # one scan


def test_a_jpeg_of_very_many_scans_is_refused(monkeypatch):
    content = encoded("JPEG", progressive=True)
    scans = content.count(b"\xff\xda")
    monkeypatch.setattr(image_limits, "MAX_SCANNED_PIXELS", scans * 64 * 64)
    assert open_image(content).size == (64, 64)
    last = content.rindex(b"\xff\xda")
    refused(content[:last] + 2 * content[last:], "too large")


@pytest.mark.parametrize("marker", [b"\xe1", b"\xe2", b"\xfe", b"\xff"])
def test_a_jpeg_of_very_many_segments_is_refused(marker):
    assert open_image(with_segments(marker, b"Exif\0\0", 100)).size == (64, 64)
    refused(with_segments(marker, b"Exif\0\0", 5_000), "too much metadata before its pixels")


def test_a_jpeg_of_very_much_metadata_is_refused(monkeypatch):
    monkeypatch.setattr(image_limits, "MAX_JPEG_METADATA", 100_000)
    assert open_image(with_segments(b"\xe5", bytes(65_533), 1)).size == (64, 64)
    refused(with_segments(b"\xe5", bytes(65_533), 2), "too much metadata")


def test_a_jpeg_that_ends_in_its_metadata_is_refused():
    content = encoded("JPEG")
    for length in range(3, content.index(b"\xff\xda")):
        refused(content[:length], "cannot be read")


@pytest.mark.parametrize("name", [b"IDAT", b"abCd"])
def test_a_png_of_very_many_chunks_is_refused(monkeypatch, name):
    monkeypatch.setattr(image_limits, "MAX_PNG_CHUNKS", 20)
    content = encoded("PNG")
    pixels = content.index(b"IDAT") - 4
    assert open_image(content[:pixels] + chunk(name) * 10 + content[pixels:]).size == (64, 64)
    refused(content[:pixels] + chunk(name) * 20 + content[pixels:], "more than 20 chunks")


@pytest.mark.parametrize("form", ["ICO", "ICNS"])
def test_an_icon_is_read_and_one_with_a_large_image_is_refused(form):
    sizes = {"ICO": (32, 32), "ICNS": (1024, 1024)}  # Pillow saves ICNS at all of its sizes
    assert open_image(encoded(form, (32, 32), "RGBA")).size == sizes[form]
    inner = encoded("PNG", (32, 32), "RGBA")
    large = inner.replace(struct.pack(">II", 32, 32), struct.pack(">II", 13_300, 13_300), 1)
    refused(icon(form, large), "too large .13,300 x 13,300 pixels")


def test_an_icon_with_a_large_jpeg_2000_image_is_refused():
    refused(icon("ICNS", giant_jpeg_2000(13_300, 13_300)), "too large .13,300 x 13,300")


def test_a_jpeg_2000_file_is_reduced_while_it_is_decoded():
    content = encoded("JPEG2000", (640, 480))
    assert open_image(content).size == (640, 480)
    assert open_image(content, at_least=120).size == (160, 120)
    assert open_image(content, at_least=121).size == (320, 240)
    one_level = encoded("JPEG2000", (640, 480), num_resolutions=1)
    assert open_image(one_level, at_least=120).size == (640, 480)


def test_a_reduced_jpeg_2000_image_shows_the_same_picture():
    gradient = np.linspace(0, 255, 512).astype("uint8")
    file = BytesIO()
    Image.fromarray(np.tile(gradient, (400, 1))).save(file, "JPEG2000")
    reduced = np.asarray(open_image(file.getvalue(), at_least=100))[:, :, 0]
    assert reduced.shape == (100, 128)
    assert np.abs(reduced.astype(int) - gradient[1::4]).max() <= 3


def test_a_large_jpeg_2000_file_is_reduced_to_fit_the_budget(monkeypatch):
    monkeypatch.setattr(image_limits, "MAX_PIXELS", 8 * 10_000)
    assert open_image(encoded("JPEG2000", (200, 200))).size == (50, 50)
    one_level = encoded("JPEG2000", (200, 200), num_resolutions=1)
    refused(one_level, r"too large \(200 x 200 pixels; at most 10,000")


@pytest.mark.parametrize(
    "options",
    [{"codeblock_size": (4, 4)}, {"precinct_size": (4, 4)}, {"tile_size": (16, 16)}],
)
def test_a_jpeg_2000_file_of_very_many_parts_is_refused(monkeypatch, options):
    monkeypatch.setattr(image_limits, "MAX_CODE_BLOCKS", 2_000)
    assert open_image(encoded("JPEG2000", (128, 128))).size == (128, 128)
    refused(encoded("JPEG2000", (128, 128), **options), "consists of .* code-blocks")


def test_a_jpeg_2000_file_with_a_damaged_header_is_refused():
    content = encoded("JPEG2000", no_jp2=True)
    assert open_image(content).size == (64, 64)
    for length in range(4, content.index(b"\xff\x90")):
        refused(content[:length], "cannot be read")
    boxes = encoded("JPEG2000")
    endless = boxes[:12] + struct.pack(">I4sQ", 1, b"jp2h", 0) + boxes[12:]
    refused(endless, "cannot be read")


@pytest.mark.parametrize("order", "<>")
def test_a_tiff_of_very_many_parts_or_of_huge_tiles_is_refused(order):
    assert open_image(tiff(order, {})).size == (4, 4)
    strips = {273: (4, [8] * 200_001), 278: (3, [1])}
    refused(tiff(order, strips), "more than 200,000 parts")
    tiles = {322: (4, [26_000]), 323: (4, [26_000]), 324: (4, [8]), 325: (4, [16])}
    refused(tiff(order, tiles), "tiles of 676,000,000 pixels")


def test_a_tiff_that_ends_before_its_directory_is_refused():
    content = tiff("<", {})
    for length in range(4, 24):
        refused(content[:length], "cannot be read")


def test_postscript_is_refused_before_ghostscript_runs_it():
    refused(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n", "is PostScript, which is"
    )


def test_formats_that_pillow_decodes_in_python_have_a_small_share_of_the_budget(monkeypatch):
    monkeypatch.setattr(image_limits, "MAX_PIXELS", 64 * 10)
    assert open_image(b"P3 5 2 255 " + b"9 " * 30).size == (5, 2)
    refused(b"P3 6 2 255 " + b"9 " * 36, "too large .6 x 2 pixels; at most 10")
    assert open_image(b"P6 6 2 255 " + b"9" * 36).size == (6, 2)  # decoded in C


def test_an_image_that_needs_more_memory_than_is_free_is_refused(monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", fail)
    refused(encoded("PNG", mode="L"), "^The image needs more memory than is free. Close other")
