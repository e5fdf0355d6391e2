from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from captioning.data.images import load_image, open_image

SIZE = (20, 30)  # height, width
EXAMPLES = Path(__file__).parents[2] / "examples"


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def picture(mode="RGB", size=(60, 40)):
    """Red on the left, green on the right; wide, so that rotation shows."""
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


def test_transparency_is_laid_on_white(tmp_path):
    image = Image.new("RGBA", (60, 40), (0, 0, 255, 0))  # invisible blue
    image.paste((255, 0, 0, 255), (0, 0, 30, 40))
    path = saved(tmp_path, image, "alpha.png")
    assert left_and_right(load_image(path, SIZE)) == ([255, 0, 0], [255, 255, 255])


def test_half_transparency_is_half_white(tmp_path):
    path = saved(tmp_path, Image.new("RGBA", (60, 40), (0, 0, 0, 128)), "half.png")
    left, _ = left_and_right(load_image(path, SIZE))
    assert left == [127, 127, 127]


def test_a_transparent_palette_colour_is_white(tmp_path):
    image = Image.new("P", (60, 40), 0)
    image.putpalette([0, 0, 255, 255, 0, 0])
    image.paste(1, (0, 0, 30, 40))
    path = saved(tmp_path, image, "palette.png", transparency=0)
    assert left_and_right(load_image(path, SIZE)) == ([255, 0, 0], [255, 255, 255])


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    ramp = np.repeat(np.linspace(0, 65535, 60)[None], 40, axis=0).astype("uint16")
    left, right = left_and_right(load_image(saved(tmp_path, Image.fromarray(ramp), "16.png"), SIZE))
    assert left == pytest.approx([47] * 3, abs=3)  # 5.5 of 30 columns
    assert right == pytest.approx([217] * 3, abs=3)  # 25.5 of 30 columns


def test_floating_point_images_run_from_black_at_0_to_white_at_1(tmp_path):
    half = Image.fromarray(np.full((40, 60), 0.5, "float32"))
    left, _ = left_and_right(load_image(saved(tmp_path, half, "float.tif"), SIZE))
    assert left == [128, 128, 128]


def test_a_rotated_photograph_is_set_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the viewer must turn by 90 degrees clockwise
    lying = picture().transpose(Image.Transpose.ROTATE_90)
    path = saved(tmp_path, lying, "rotated.png", exif=exif)
    assert left_and_right(load_image(path, SIZE)) == ([255, 0, 0], [0, 255, 0])


def test_damage_to_the_exif_data_alone_is_overlooked(tmp_path):
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x09\x00\x12\x01"  # cut off in its first entry
    path = saved(tmp_path, picture(), "exif.jpg", exif=exif, quality=95)
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
    received = load_image(path, (299, 299))
    assert np.abs(received - expected).max() <= 8
    assert np.abs(received - expected).mean() <= 0.5


def test_a_jpeg_that_is_not_twice_as_large_as_wanted_is_decoded_whole(tmp_path):
    path = saved(tmp_path, picture(size=(119, 79)), "small.jpg")
    assert open_image(path, at_least=40).size == (119, 79)


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [picture(), Image.new("RGB", (60, 40), (0, 0, 255))]
    path = saved(tmp_path, frames[0], "moving.gif", save_all=True, append_images=frames[1:])
    assert left_and_right(load_image(path, SIZE)) == ([255, 0, 0], [0, 255, 0])


def test_a_single_pixel_fills_the_picture(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (1, 1), (9, 8, 7)), "dot.png")
    assert np.unique(load_image(path, SIZE).reshape(-1, 3), axis=0).tolist() == [[9, 8, 7]]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*gone.jpg"):
        load_image(tmp_path / "gone.jpg", SIZE)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        load_image(tmp_path, SIZE)


def test_a_name_longer_than_any_file_name_is_refused():
    with pytest.raises((ValueError, FileNotFoundError)):
        load_image("a" * 5000, SIZE)


@pytest.mark.parametrize("content", [b"", b"a dog runs", b"\xff\xd8\xff\xe0 no JPEG"])
def test_a_file_that_is_no_image_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "odd.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="odd.jpg cannot be read as an image") as caught:
        load_image(path, SIZE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png"])
def test_a_file_that_was_cut_off_is_refused(tmp_path, name):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype="uint8"))
    path = saved(tmp_path, noise, name)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="cannot be read as an image"):
        load_image(path, SIZE)


def test_an_image_of_dangerous_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="too large to be safe .* Scale it down"):
        load_image(saved(tmp_path, picture(), "large.png"), SIZE)


def test_an_image_of_pillow_gives_the_pixels_of_its_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, picture(), "rotated.png", exif=exif)
    with Image.open(path) as image:
        np.testing.assert_array_equal(load_image(image, SIZE), load_image(path, SIZE))
    assert left_and_right(load_image(picture("RGBA"), SIZE)) == ([255, 0, 0], [0, 255, 0])


def test_an_image_of_pillow_is_left_as_it_was(tmp_path):
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


def test_an_array_of_two_dimensions_is_grey():
    array = np.zeros((40, 60), "uint8")
    array[:, :30] = 200
    assert left_and_right(load_image(array, SIZE)) == ([200] * 3, [0] * 3)


def test_an_array_seen_in_a_mirror_is_an_image_too():
    array = np.asarray(picture())[:, ::-1]
    assert left_and_right(load_image(array, SIZE)) == ([0, 255, 0], [255, 0, 0])


def test_a_tensor_is_taken_as_the_array_that_it_holds():
    tensor = keras.ops.convert_to_tensor(np.asarray(picture()))
    assert left_and_right(load_image(tensor, SIZE)) == ([255, 0, 0], [0, 255, 0])


@pytest.mark.parametrize(
    ("array", "received"),
    [
        (np.zeros((2, 4, 6, 3), "uint8"), r"as a list. Received: \(2, 4, 6, 3\), uint8"),
        (np.zeros((4, 6, 5), "uint8"), r"\(4, 6, 5\), uint8"),
        (np.zeros((0, 6, 3), "uint8"), r"\(0, 6, 3\), uint8"),
        (np.zeros((0, 6, 3), "float32"), r"\(0, 6, 3\), float32"),
        (np.full((4, 6, 3), 255.0), "float64, values from 255.0 to 255.0"),
        (np.full((4, 6, 3), -0.5), "float64, values from -0.5 to -0.5"),
        (np.full((4, 6, 3), np.nan), "float64, values from nan to nan"),
        (np.full((4, 6, 3), 7), "int64, values from 7 to 7"),
        (np.full((4, 6), "dog"), "<U3"),
    ],
)
def test_an_array_that_is_no_image_is_refused(array, received):
    with pytest.raises(ValueError, match=f"The array is no image. Wanted: .*{received}"):
        load_image(array, SIZE)


@pytest.mark.parametrize("something", [None, 7, b"\xff\xd8"])
def test_what_is_neither_path_nor_image_nor_array_is_refused(something):
    with pytest.raises(TypeError, match=f"Received: {type(something).__name__}"):
        load_image(something, SIZE)


def test_a_damaged_image_of_pillow_is_named_by_its_file(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype="uint8"))
    path = saved(tmp_path, noise, "cut.png")
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as image, pytest.raises(ValueError, match="cut.png cannot be read"):
        load_image(image, SIZE)
