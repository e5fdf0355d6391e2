"""Colours of 8 to 16 bits in files of 16 bits a channel."""

import struct
import zlib

import numpy as np
import pytest

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
