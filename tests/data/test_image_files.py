import threading
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from captioning.data import image_files
from captioning.data.images import UnreadableImage, open_image


def saved(tmp_path, name, size, mode="RGB", **options):
    Image.new(mode, size).save(tmp_path / name, **options)
    return tmp_path / name


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


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16"])
def test_a_large_image_is_reduced_and_looks_the_same(tmp_path, monkeypatch, mode):
    gradient = np.tile(np.linspace(0, 255, 600).astype("uint8"), (400, 1))
    image = Image.fromarray(gradient.astype("uint16") * 257 if mode == "I;16" else gradient)
    exif = Image.Exif()
    exif[0x0112] = 6
    (image if mode == "I;16" else image.convert(mode)).save(tmp_path / "a.png", exif=exif)
    whole = open_image(tmp_path / "a.png", at_least=100)
    assert whole.size == (400, 600)
    monkeypatch.setattr(image_files, "_LARGE", 600 * 400 - 1)
    reduced = open_image(tmp_path / "a.png", at_least=100)
    assert reduced.size == (100, 150)
    expected = np.asarray(whole.resize((100, 150), Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(reduced) - expected).max() <= 1
    assert open_image(tmp_path / "a.png").size == (400, 600)


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
