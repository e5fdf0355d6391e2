import threading
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from captioning.data import image_files
from captioning.data.images import UnreadableImage, open_image


@pytest.fixture
def small_budget(monkeypatch):
    """10,000 pixels, and Pillow's own limit below that."""
    monkeypatch.setattr(image_files, "MAX_PIXELS", 10_000)
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
    monkeypatch.setattr(image_files, "MAX_PIXELS", 7_000)
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
    monkeypatch.setattr(image_files, "MAX_JPEG_PIXELS", 10_000)
    monkeypatch.setattr(image_files, "MAX_PROGRESSIVE_COEFFICIENTS", 3_750)  # 1.5 a pixel
    path = saved(tmp_path, "whole.jpg", (side, side), **options)
    assert open_image(path, at_least=1).size == ((side + 7) // 8, (side + 7) // 8)
    path = saved(tmp_path, "absurd.jpg", (side + 1, side), **options)
    with pytest.raises(UnreadableImage, match=f"too large .*at most {side**2:,} are decoded"):
        open_image(path, at_least=1)


def test_large_images_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "_LARGE", 99)
    large = saved(tmp_path, "large.png", (10, 10))
    small = saved(tmp_path, "small.png", (9, 11))
    with image_files._large_image:
        open_image(small)
        thread = threading.Thread(target=open_image, args=[large])
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()


NOISE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype="uint8")
PICTURE = Image.fromarray(NOISE)


def encoded(form, image=PICTURE, **options):
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def with_text(spoil=False, **options):
    metadata = PngInfo()
    metadata.add_text("Comment", "made by hand")
    content = bytearray(encoded("PNG", pnginfo=metadata, **options))
    if spoil:
        content[content.index(b"tEXt") + 6] ^= 1  # its checksum is wrong now
    return bytes(content)


def with_long_text():
    metadata = PngInfo()
    metadata.add_text("workflow", "step " * 400_000, zip=True)
    return encoded("PNG", pnginfo=metadata)


@pytest.mark.parametrize(
    "content",
    [encoded("PNG", icc_profile=bytes(1_500_000)), with_long_text(), with_text(spoil=True)],
    ids=["large profile", "long text", "wrong checksum"],
)
def test_a_png_with_oversized_or_damaged_ancillary_chunks_is_read(content):
    with pytest.raises((ValueError, OSError)), Image.open(BytesIO(content)) as image:
        image.load()
    np.testing.assert_array_equal(np.asarray(open_image(content)), NOISE)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_transparency_and_orientation_survive_the_repair_of_a_png():
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = Image.new("P", (60, 40), 0)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    palette.paste(1, (0, 0, 30, 40))
    profile = bytes(1_500_000)
    content = encoded("PNG", palette, transparency=0, exif=exif, icc_profile=profile)
    opened = open_image(content)
    assert opened.size == (40, 60)
    assert opened.getpixel((5, 5)) == (255, 0, 0)
    assert opened.getpixel((5, 55)) == (255, 255, 255)


def test_a_png_whose_pixels_are_damaged_is_refused():
    content = bytearray(with_text(spoil=True))
    content[content.index(b"IDAT") + 500] ^= 1
    with pytest.raises(UnreadableImage):
        open_image(bytes(content))
    with pytest.raises(UnreadableImage):
        open_image(with_text(spoil=True)[:5000])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 95}])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_marker_is_read(options, missing):
    content = encoded("JPEG", **options)
    expected = np.asarray(open_image(content))
    np.testing.assert_array_equal(np.asarray(open_image(content[:-missing])), expected)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_a_jpeg_that_lacks_pixels_is_refused(options, share):
    content = encoded("JPEG", **options)
    with pytest.raises(UnreadableImage, match="truncated"):
        open_image(content[: int(share * len(content))])


def test_a_damaged_file_too_large_to_repair_is_refused(monkeypatch):
    content = with_text(spoil=True)
    monkeypatch.setattr(image_files, "MAX_REPAIRED_BYTES", len(content) - 1)
    with pytest.raises(UnreadableImage):
        open_image(content)


def test_a_chunk_of_absurd_length_ends_the_repair():
    content = with_text(spoil=True)
    begin = content.index(b"tEXt") - 4
    endless = content[:begin] + b"\xff\xff\xff\xff" + content[begin + 4 :]
    assert zlib.crc32(endless) != zlib.crc32(content)
    with pytest.raises(UnreadableImage):
        open_image(endless)
