import os
import struct
import sys
import zlib
from io import BytesIO, StringIO
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from captioning.data import image_files
from captioning.data.images import UnreadableImage, load_image, open_image

SIZE = (20, 30)  # height, width
EXAMPLES = Path(__file__).parents[2] / "examples"


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def picture(mode="RGB", size=(60, 40)):
    """Red on the left, green on the right; wide, so that a missing rotation changes the result."""
    image = Image.new("RGB", size, (0, 255, 0))
    image.paste((255, 0, 0), (0, 0, size[0] // 2, size[1]))
    return image.convert(mode)


def left_and_right(array):
    assert array.shape == (*SIZE, 3)
    assert array.dtype == np.uint8
    return array[10, 5].tolist(), array[10, 25].tolist()


@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGB", "a.png"), ("RGBA", "a.png"), ("P", "a.gif"), ("P", "a.png"), ("RGB", "a.bmp")],
)
def test_lossless_files_keep_their_colours(tmp_path, mode, name):
    path = saved(tmp_path, picture(mode), name)
    assert left_and_right(load_image(path, SIZE)) == ([255, 0, 0], [0, 255, 0])


@pytest.mark.parametrize(
    ("mode", "name"), [("RGB", "a.jpg"), ("CMYK", "a.jpg"), ("CMYK", "a.tif"), ("RGB", "a.webp")]
)
def test_lossy_and_print_files_nearly_keep_their_colours(tmp_path, mode, name):
    left, right = left_and_right(load_image(saved(tmp_path, picture(mode), name), SIZE))
    assert np.abs(np.subtract(left, [255, 0, 0])).max() <= 8
    assert np.abs(np.subtract(right, [0, 255, 0])).max() <= 8


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_images_become_grey_colours(tmp_path, mode):
    image = Image.new("L", (60, 40), 255)
    image.paste(0, (0, 0, 30, 40))
    path = saved(tmp_path, image.convert(mode), "grey.png")
    assert left_and_right(load_image(path, SIZE)) == ([0, 0, 0], [255, 255, 255])


def test_transparent_pixels_become_white(tmp_path):
    image = Image.new("RGBA", (60, 40), (0, 0, 255, 0))  # invisible blue
    image.paste((255, 0, 0, 255), (0, 0, 30, 40))
    path = saved(tmp_path, image, "alpha.png")
    assert left_and_right(load_image(path, SIZE)) == ([255, 0, 0], [255, 255, 255])


def test_half_transparent_pixels_are_mixed_with_white(tmp_path):
    path = saved(tmp_path, Image.new("RGBA", (60, 40), (0, 0, 0, 128)), "half.png")
    left, _ = left_and_right(load_image(path, SIZE))
    assert left == [127, 127, 127]


def test_a_transparent_palette_colour_becomes_white(tmp_path):
    image = Image.new("P", (60, 40), 0)
    image.putpalette([0, 0, 255, 255, 0, 0])
    image.paste(1, (0, 0, 30, 40))
    path = saved(tmp_path, image, "palette.png", transparency=0)
    assert left_and_right(load_image(path, SIZE)) == ([255, 0, 0], [255, 255, 255])


@pytest.mark.parametrize("white", [4095, 65535])
def test_grey_values_of_12_and_16_bits_are_scaled_not_clipped(tmp_path, white):
    ramp = np.repeat(np.linspace(0, white, 60)[None], 40, axis=0).astype("uint16")
    left, right = left_and_right(load_image(saved(tmp_path, Image.fromarray(ramp), "16.png"), SIZE))
    assert left == pytest.approx([47] * 3, abs=3)  # 5.5 of 30 columns
    assert right == pytest.approx([217] * 3, abs=3)  # 25.5 of 30 columns


@pytest.mark.parametrize(("value", "grey"), [(0.5, 128), (1.0, 255), (128.0, 128), (200.0, 200)])
def test_float_values_range_from_0_to_1_or_from_0_to_255(tmp_path, value, grey):
    flat = Image.fromarray(np.full((40, 60), value, "float32"))
    left, _ = left_and_right(load_image(saved(tmp_path, flat, "float.tif"), SIZE))
    assert left == [grey] * 3


def test_a_rotated_photograph_is_set_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the viewer must turn by 90 degrees clockwise
    lying = picture().transpose(Image.Transpose.ROTATE_90)
    path = saved(tmp_path, lying, "rotated.png", exif=exif)
    assert left_and_right(load_image(path, SIZE)) == ([255, 0, 0], [0, 255, 0])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_is_ignored(tmp_path):
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x09\x00\x12\x01"  # cut off in its first entry
    path = saved(tmp_path, picture(), "exif.jpg", exif=exif, quality=95)
    left, right = left_and_right(load_image(path, SIZE))
    assert left[0] > 240 and right[1] > 240


TURNED = 0x0112, 3, 1, b"\6\0\0\0"  # the viewer must turn it by 90 degrees clockwise


def exif_of(*entries):
    """EXIF data of entries, valid or not: each a tag, a type, a count and four bytes."""
    directory = b"".join(struct.pack("<HHI4s", *entry) for entry in sorted(entries))
    count = struct.pack("<H", len(entries))
    return b"Exif\0\0II*\0\x08\0\0\0" + count + directory + b"\0\0\0\0"


@pytest.mark.parametrize(
    "entry",
    [
        (0x011A, 2, 4, b"72d\0"),  # the resolution as text
        (0x010F, 5, 1, b"\0\0\0\0"),  # the maker as a fraction
        (0x8769, 2, 4, b"abc\0"),  # the place of more entries as text
        (0x0132, 3, 1, b"\1\0\0\0"),  # the date as a number
    ],
)
def test_a_photograph_is_set_upright_despite_exif_values_of_a_wrong_type(tmp_path, entry):
    lying = picture().transpose(Image.Transpose.ROTATE_90)
    path = saved(tmp_path, lying, "exif.jpg", exif=exif_of(TURNED, entry), quality=95)
    left, right = left_and_right(load_image(path, SIZE))
    assert left[0] > 240 and right[1] > 240


@pytest.mark.parametrize("entry", [(0x0112, 2, 4, b"six\0"), (0x0112, 3, 1, b"\x63\0\0\0")])
def test_an_invalid_orientation_is_ignored(tmp_path, entry):
    path = saved(tmp_path, picture(), "exif.jpg", exif=exif_of(entry), quality=95)
    left, right = left_and_right(load_image(path, SIZE))
    assert left[0] > 240 and right[1] > 240


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path):
    """12 megapixels of real photographs, on their side as cameras store them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    large = Image.new("RGB", (4000, 3000))
    for number, path in enumerate(sorted(EXAMPLES.glob("*.jpg"))[:20]):
        with Image.open(path) as photograph:
            part = photograph.convert("RGB").resize((800, 750), Image.Resampling.LANCZOS)
        large.paste(part, (number % 5 * 800, number // 5 * 750))
    path = saved(tmp_path, large, "large.jpg", exif=exif, quality=90)

    opened = open_image(path)
    assert opened.size == (3000, 4000)
    expected = np.asarray(opened.resize((299, 299), Image.Resampling.BILINEAR)).astype(int)
    assert open_image(path, at_least=2 * 299).size == (750, 1000)
    loaded = load_image(path, (299, 299))
    assert np.abs(loaded - expected).max() <= 8
    assert np.abs(loaded - expected).mean() <= 0.5


def test_a_jpeg_of_less_than_twice_the_requested_size_is_decoded_whole(tmp_path):
    path = saved(tmp_path, picture(size=(119, 79)), "small.jpg")
    assert open_image(path, at_least=40).size == (119, 79)


def test_only_the_first_frame_of_an_animation_is_used(tmp_path):
    frames = [picture(), Image.new("RGB", (60, 40), (0, 0, 255))]
    path = saved(tmp_path, frames[0], "moving.gif", save_all=True, append_images=frames[1:])
    assert left_and_right(load_image(path, SIZE)) == ([255, 0, 0], [0, 255, 0])


def test_a_single_pixel_fills_the_picture(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (1, 1), (9, 8, 7)), "dot.png")
    assert np.unique(load_image(path, SIZE).reshape(-1, 3), axis=0).tolist() == [[9, 8, 7]]


def test_the_message_for_a_missing_file_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*gone.jpg"):
        load_image(tmp_path / "gone.jpg", SIZE)


def test_a_folder_in_place_of_an_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        load_image(tmp_path, SIZE)


def test_an_overlong_file_name_is_refused():
    with pytest.raises((ValueError, FileNotFoundError)):
        load_image("a" * 5000, SIZE)


@pytest.mark.parametrize("content", [b"", b"a dog runs", b"\xff\xd8\xff\xe0 no JPEG"])
def test_a_file_of_another_format_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "odd.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="odd.jpg cannot be read as an image") as caught:
        load_image(path, SIZE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png"])
def test_a_truncated_file_is_refused(tmp_path, name):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype="uint8"))
    path = saved(tmp_path, noise, name)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="cannot be read as an image"):
        load_image(path, SIZE)


DECODERS_RAISE = [
    AttributeError, IndexError, NotImplementedError, OSError, OverflowError,
    RecursionError, RuntimeError, SyntaxError, TypeError, ZeroDivisionError, struct.error,
    zlib.error, EOFError,
]  # fmt: skip


@pytest.mark.parametrize("error", DECODERS_RAISE)
def test_any_error_of_a_decoder_becomes_the_one_line_error_of_that_file(
    tmp_path, monkeypatch, error
):
    def fail(image):
        raise error("out of\nluck")

    path = saved(tmp_path, picture(), "odd.png")
    monkeypatch.setattr(PngImageFile, "load", fail)
    with pytest.raises(UnreadableImage) as caught:
        load_image(path, SIZE)
    assert str(caught.value) == (
        f"{path} cannot be read as an image (out of luck). Open it in an image viewer; if it is "
        "whole there, save it as JPEG or PNG."
    )


def damaged_avif(tmp_path):
    """A file with a whole header whose compressed pixels are zeros, as of a failed download."""
    path = saved(tmp_path, picture(), "odd.avif")
    content = path.read_bytes()
    begin = content.index(b"mdat") + 4
    path.write_bytes(content[:begin] + bytes(len(content) - begin))
    return path


def cut_qoi(tmp_path):
    path = saved(tmp_path, picture(), "odd.qoi")
    path.write_bytes(path.read_bytes()[:20])
    return path


def unknown_dds(tmp_path):
    path = saved(tmp_path, picture(), "odd.dds")
    content = bytearray(path.read_bytes())
    content[80:88] = b"\4\0\0\0ABCD"  # an unknown compression
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("write", [damaged_avif, cut_qoi, unknown_dds])
def test_files_with_unusual_errors_of_pillow_are_refused_in_one_line(tmp_path, write):
    with pytest.raises(UnreadableImage, match=r"odd\.\w+ cannot be read as an image") as caught:
        load_image(write(tmp_path), SIZE)
    assert "\n" not in str(caught.value)


def test_an_error_keeps_no_pixels_in_memory(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype="uint8"))
    path = saved(tmp_path, noise, "cut.png")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UnreadableImage) as caught:
        load_image(path, SIZE)
    assert caught.value.__context__ is None
    frame = caught.value.__traceback__
    while frame := frame.tb_next:
        assert not any(
            isinstance(value, (Image.Image, np.ndarray))
            for value in frame.tb_frame.f_locals.values()
        )


@pytest.fixture
def heic_never_opened(monkeypatch):
    """As in a program that has not opened a HEIC image yet."""
    monkeypatch.setattr(Image, "ID", [form for form in Image.ID if form != "HEIF"])
    image_files._register_heif.cache_clear()
    yield
    image_files._register_heif.cache_clear()


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_the_message_for_a_heic_image_names_the_extra_that_reads_it(
    tmp_path, monkeypatch, heic_never_opened, brand
):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "IMG_0002.HEIC"
    path.write_bytes(b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0mif1heicmiaf" + bytes(3000))
    with pytest.raises(UnreadableImage) as caught:
        load_image(path, SIZE)
    assert str(caught.value) == (
        f'{path} is a HEIC image, and pillow-heif is not installed. Run `pip install ".[heif]"` in '
        "the folder of the clone, or save it as JPEG."
    )


def saved_as_heic(tmp_path, image, **options):
    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "IMG_0002.HEIC"
    heif.from_pillow(image).save(path, quality=95, **options)
    return path


def test_a_heic_image_is_read_without_preparation(tmp_path, heic_never_opened):
    path = saved_as_heic(tmp_path, picture())
    for image in (path, path.read_bytes()):
        left, right = left_and_right(load_image(image, SIZE))
        np.testing.assert_allclose([left, right], [[255, 0, 0], [0, 255, 0]], atol=15)


def test_a_rotated_heic_image_is_set_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = picture().transpose(Image.Transpose.ROTATE_90)
    path = saved_as_heic(tmp_path, lying, exif=exif.tobytes())
    left, right = left_and_right(load_image(path, SIZE))
    np.testing.assert_allclose([left, right], [[255, 0, 0], [0, 255, 0]], atol=15)


def test_a_truncated_heic_image_is_refused(tmp_path):
    path = saved_as_heic(tmp_path, Image.effect_noise((90, 90), 90).convert("RGB"))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UnreadableImage, match="cannot be read as an image"):
        load_image(path, SIZE)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files there")
def test_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", "/dev/zero"):
        with pytest.raises(UnreadableImage, match="is a pipe, a socket or a device"):
            load_image(path, SIZE)


def test_a_pillow_image_gives_the_pixels_of_its_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, picture(), "rotated.png", exif=exif)
    with Image.open(path) as image:
        np.testing.assert_array_equal(load_image(image, SIZE), load_image(path, SIZE))
    assert left_and_right(load_image(picture("RGBA"), SIZE)) == ([255, 0, 0], [0, 255, 0])


def test_a_pillow_image_is_not_changed(tmp_path):
    frames = [picture(), Image.new("RGB", (60, 40), (0, 0, 255))]
    path = saved(tmp_path, frames[0], "moving.gif", save_all=True, append_images=frames[1:])
    with Image.open(path) as image:
        load_image(image, SIZE)
        image.seek(1)  # a closed file has no next frame
        assert image.size == (60, 40)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_an_array_of_colours_is_an_image(dtype):
    array = np.asarray(picture())
    array = array if dtype == "uint8" else (array / 255).astype(dtype)
    assert left_and_right(load_image(array, SIZE)) == ([255, 0, 0], [0, 255, 0])


def test_an_array_of_two_dimensions_is_a_grey_image():
    array = np.zeros((40, 60), "uint8")
    array[:, :30] = 200
    assert left_and_right(load_image(array, SIZE)) == ([200] * 3, [0] * 3)


def test_an_array_with_negative_strides_is_an_image():
    array = np.asarray(picture())[:, ::-1]
    assert left_and_right(load_image(array, SIZE)) == ([0, 255, 0], [255, 0, 0])


def test_a_tensor_is_an_image():
    tensor = keras.ops.convert_to_tensor(np.asarray(picture()))
    assert left_and_right(load_image(tensor, SIZE)) == ([255, 0, 0], [0, 255, 0])


def test_an_array_of_four_channels_is_an_rgba_image():
    array = np.asarray(picture("RGBA")).copy()
    array[:, 30:, 3] = 0
    assert left_and_right(load_image(array, SIZE)) == ([255, 0, 0], [255, 255, 255])
    assert left_and_right(load_image(array / 255, SIZE)) == ([255, 0, 0], [255, 255, 255])


def test_an_array_of_one_channel_is_a_grey_image():
    array = np.full((40, 60, 1), 200, "uint8")
    assert left_and_right(load_image(array, SIZE)) == ([200] * 3, [200] * 3)


@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_arrays_of_any_type_with_numbers_from_0_to_255_are_images(dtype):
    array = np.asarray(picture()).astype(dtype)
    assert left_and_right(load_image(array, SIZE)) == ([255, 0, 0], [0, 255, 0])


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((2, 4, 6, 3), "uint8"), r"as a list, got \(2, 4, 6, 3\) of uint8"),
        (np.zeros((4, 6, 5), "uint8"), r"\(4, 6, 5\) of uint8"),
        (np.zeros((3, 40, 60), "uint8"), r"\(3, 40, 60\) of uint8"),
        (np.zeros((0, 6, 3), "uint8"), r"\(0, 6, 3\) of uint8"),
        (np.zeros((0, 6, 3), "float32"), r"\(0, 6, 3\) of float32"),
        (np.full((4, 6), "dog"), r"\(4, 6\) of <U3"),
        (np.full((4, 6), 1j), r"\(4, 6\) of complex128"),
    ],
)
def test_an_array_of_another_shape_or_type_is_refused(array, got):
    with pytest.raises(ValueError, match=f"^Expected an array of numbers .*{got}"):
        load_image(array, SIZE)


def test_an_array_without_a_finite_number_is_refused():
    with pytest.raises(ValueError, match="^Expected finite pixel values, got none"):
        load_image(np.full((4, 6, 3), np.nan), SIZE)


@pytest.mark.parametrize("something", [None, 7, [1, 2], StringIO("text")])
def test_an_object_of_another_type_is_refused(something):
    kind = "str" if isinstance(something, StringIO) else type(something).__name__
    with pytest.raises(TypeError, match=f"^Expected the path of an image.*got {kind}"):
        load_image(something, SIZE)


@pytest.mark.parametrize("name", ["large.jpg", "large.png"])
def test_the_bytes_of_a_file_and_an_open_file_give_the_pixels_of_its_path(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (800, 640, 3), dtype="uint8")
    path = saved(tmp_path, Image.fromarray(noise), name, exif=exif)
    expected = load_image(path, SIZE)
    np.testing.assert_array_equal(load_image(path.read_bytes(), SIZE), expected)
    np.testing.assert_array_equal(load_image(BytesIO(path.read_bytes()), SIZE), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(load_image(file, SIZE), expected)
        np.testing.assert_array_equal(load_image(file, SIZE), expected)  # it is read from its start
        assert not file.closed


def test_files_that_are_closed_or_opened_as_text_are_refused(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (8, 8)), "a.jpg")
    with path.open(encoding="utf-8") as text:
        with pytest.raises(UnreadableImage, match="a.jpg cannot be read .*utf-8"):
            load_image(text, SIZE)
    with pytest.raises(UnreadableImage, match='a.jpg cannot be read .*closed.*mode: "rb"'):
        load_image(text, SIZE)


def test_damaged_bytes_and_open_files_are_refused(tmp_path):
    with pytest.raises(UnreadableImage, match="^The image cannot be read as an image"):
        load_image(b"\xff\xd8", SIZE)
    (tmp_path / "odd.jpg").touch()
    with (tmp_path / "odd.jpg").open("rb") as file, pytest.raises(ValueError, match="odd.jpg can"):
        load_image(file, SIZE)


def test_the_message_for_a_damaged_pillow_image_names_its_file(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype="uint8"))
    path = saved(tmp_path, noise, "cut.png")
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as image, pytest.raises(ValueError, match="cut.png cannot be read"):
        load_image(image, SIZE)


def test_open_image_returns_a_copy_of_a_pillow_image(tmp_path):
    image = picture()
    opened = open_image(image)
    opened.paste((0, 0, 0), (0, 0, 60, 40))
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_a_transparent_value_of_16_bits_becomes_white(tmp_path):
    values = np.zeros((40, 60), "uint16")
    values[:, :30] = 30_000
    path = saved(tmp_path, Image.fromarray(values), "transparent.png", transparency=0)
    left, right = left_and_right(load_image(path, SIZE))
    assert (left, right) == ([117] * 3, [255] * 3)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_transparent_colour_from_before_a_conversion_does_no_harm(mode):
    image = Image.new("RGB", (8, 8))
    image.info["transparency"] = (0, 0, 0)
    assert load_image(image.convert(mode), (8, 8)).shape == (8, 8, 3)
