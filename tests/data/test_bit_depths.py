"""Values of any type and depth, and colours of 8 to 16 bits in files of 16 bits a channel."""

import struct
import zlib

import numpy as np
import pytest

from captioning.data.bit_depths import scale_to_bytes
from captioning.data.images import load_image, open_image
from tests.bombs import chunk, tiff

GREY_ALPHA, RGB, RGBA = 4, 2, 6  # colour types of PNG
DEPTHS = [8, 10, 12, 14, 16]


def pixels_of(bits, channels):
    """Random values of so many bits, white among them."""
    values = np.random.default_rng(0).integers(0, 2**bits, (600, 7, channels), dtype="uint16")
    values[0, 0] = 2**bits - 1
    return values


def png(values, kind):
    height, width, _ = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND")


def colour_tiff(values, order, compression):
    height, width, channels = values.shape
    content = values.astype(f"{order}u2").tobytes()
    if compression == 8:
        content = zlib.compress(content)
    tags = {256: (3, [width]), 257: (3, [height]), 258: (3, [16] * channels), 262: (3, [2]),
            259: (3, [compression]), 273: (4, [24]), 277: (3, [channels]), 278: (3, [height]),
            279: (4, [len(content)]), 338: (3, [2])}  # fmt: skip
    if channels == 3:
        del tags[338]  # the opacity
    return tiff(order, tags, content)


def assert_scaled(content, colours, bits):
    expected = colours / (2**bits - 1) * 255
    np.testing.assert_allclose(np.asarray(open_image(content)).astype(float), expected, atol=1.01)


@pytest.mark.parametrize("bits", DEPTHS)
def test_colours_in_a_png_of_16_bits_are_scaled_by_their_depth(bits):
    values = pixels_of(bits, 3)
    assert_scaled(png(values, RGB), values, bits)


@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [1, 8])
def test_colours_in_a_tiff_of_16_bits_are_scaled_by_their_depth(bits, order, compression):
    values = pixels_of(bits, 3)
    assert_scaled(colour_tiff(values, order, compression), values, bits)


@pytest.mark.parametrize("bits", DEPTHS)
def test_opacity_has_a_depth_of_its_own(bits):
    values = pixels_of(bits, 4)
    for opaque in (2**bits - 1, 65535):
        values[:, :, 3] = opaque
        assert_scaled(png(values, RGBA), values[:, :, :3], bits)
        assert_scaled(colour_tiff(values, "<", 1), values[:, :, :3], bits)
        grey = values[:, :, [0, 3]]
        assert_scaled(png(grey, GREY_ALPHA), grey[:, :, [0, 0, 0]], bits)
    values[:, :, 3] = 0  # nothing but the page
    assert np.unique(np.asarray(open_image(png(values, RGBA)))).tolist() == [255]


def test_colours_are_scaled_as_a_grey_image_of_the_same_values():
    grey = pixels_of(12, 1)
    of_grey = load_image(png(grey, 0), (9, 9))
    of_colours = load_image(png(np.repeat(grey, 3, axis=2), RGB), (9, 9))
    np.testing.assert_allclose(of_colours.astype(int), of_grey, atol=1)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 7, 255], "uint8", [0, 7, 255]),
        ([False, True], "bool", [0, 255]),
        ([0, 7, 255], "int64", [0, 7, 255]),  # 8 bits in a wider type
        ([0, 1023], "uint16", [0, 255]),  # 10 bits
        ([0, 1500, 3000], "uint16", [0, 93, 187]),  # 12 bits, of which 4095 is white
        ([0, 16383], "uint16", [0, 255]),  # 14 bits
        ([0, 32768, 65535], "uint16", [0, 128, 255]),
        ([0, 50000, 100000], "int32", [0, 128, 255]),  # their own range
        ([-100, 0, 100], "int16", [0, 128, 255]),
        ([-5, -5], "int16", [0, 0]),
        ([0.0, 0.5, 1.0], "float32", [0, 128, 255]),
        ([0.0, 0.25], "float16", [0, 64]),  # dark stays dark
        ([0.0, 127.6, 255.0], "float64", [0, 128, 255]),
        ([0.0, 1.5], "float32", [0, 2]),  # from 0 to 255 as well
        ([-1.0, 0.0, 1.0], "float32", [0, 128, 255]),
        ([0.0, 500.0, 1000.0], "float32", [0, 128, 255]),
        ([np.nan, 0.5, np.inf, -np.inf, 1.0], "float32", [0, 128, 255, 0, 255]),
        ([-1e308, 0, 1e308], "float64", [0, 0, 0]),  # a range beyond all numbers
    ],
)
def test_type_and_range_of_the_values_determine_black_and_white(values, dtype, expected):
    scaled = scale_to_bytes(np.array(values, dtype))
    assert scaled.dtype == np.uint8
    assert scaled.tolist() == expected


def test_scaling_does_not_change_the_values_of_the_caller():
    values = np.array([0.0, np.nan, 900.0])
    scale_to_bytes(values)
    np.testing.assert_array_equal(values, [0.0, np.nan, 900.0])


def test_values_that_are_all_infinite_or_nan_are_refused():
    with pytest.raises(ValueError, match="Expected finite pixel values, got none"):
        scale_to_bytes(np.array([np.nan, np.inf]))


@pytest.mark.parametrize("dtype", ["uint32", "int64"])
def test_neighbouring_values_of_32_bits_stay_apart(dtype):
    values = (4_000_000_000 + np.arange(256)).astype(dtype)
    assert scale_to_bytes(values).tolist() == [*range(256)]
