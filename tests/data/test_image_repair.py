"""Files that viewers and browsers show whole, and Pillow alone does not."""

import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from captioning.data import image_repair
from captioning.data.images import UnreadableImage, open_image

NOISE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype="uint8")
PICTURE = Image.fromarray(NOISE)


def encoded(form, image=PICTURE, **options):
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def with_text(spoil=False, **options):
    notes = PngInfo()
    notes.add_text("Comment", "made by hand")
    content = bytearray(encoded("PNG", pnginfo=notes, **options))
    if spoil:
        content[content.index(b"tEXt") + 6] ^= 1  # its checksum is wrong now
    return bytes(content)


def with_long_text():
    notes = PngInfo()
    notes.add_text("workflow", "step " * 400_000, zip=True)
    return encoded("PNG", pnginfo=notes)


@pytest.mark.parametrize(
    "content",
    [encoded("PNG", icc_profile=bytes(1_500_000)), with_long_text(), with_text(spoil=True)],
    ids=["large profile", "long text", "wrong checksum"],
)
def test_a_png_is_read_whatever_its_side_chunks_hold(content):
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


def test_a_file_too_large_to_be_repaired_in_memory_is_refused(monkeypatch):
    content = with_text(spoil=True)
    monkeypatch.setattr(image_repair, "MAX_BYTES", len(content) - 1)
    with pytest.raises(UnreadableImage):
        open_image(content)


def test_a_chunk_that_claims_to_be_endless_ends_the_repair():
    content = with_text(spoil=True)
    begin = content.index(b"tEXt") - 4
    endless = content[:begin] + b"\xff\xff\xff\xff" + content[begin + 4 :]
    assert zlib.crc32(endless) != zlib.crc32(content)
    with pytest.raises(UnreadableImage):
        open_image(endless)
