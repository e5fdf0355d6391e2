"""Pixel values of any bit depth, scaled to 8 bits.

Cameras and scanners often store values of 10, 12 or 14 bits in 16 bits. The high bytes of such
values are small, so that the image would be nearly black. This module scales values by the smallest
bit depth that fits the largest of them. Of colours of 16 bits a channel, Pillow keeps only the high
byte; this module reads the low bytes, too.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageChops
from PIL.ImageFile import ImageFile

from captioning.errors import UserError

_BIT_DEPTHS = (8, 10, 12, 14, 16)  # of cameras and scanners

# Of 16-bit values, Pillow takes the byte that is the high one in the named order: big-endian,
# little-endian or that of this processor. In the other order, the same byte is the low one.
_RAW_MODE = re.compile(r"(RGB|RGBA|RGBX|LA);16([BLN])")
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B"}  # processors that run this are little-endian

_ROWS = 512  # that are scaled at a time

# For high and for low bytes: byte -> part of the scaled value.
_Tables = tuple[list[int], list[int]]
_UNSCALED: _Tables = list(range(256)), [0] * 256


def scale_to_bytes(values: np.ndarray) -> np.ndarray:
    """Scales pixel values of any numeric type and shape to uint8, from 0 (black) to 255 (white).

    - uint8 stays as it is; False and True become 0 and 255.
    - Other integers are scaled by the smallest of the bit depths 8, 10, 12, 14 and 16 that fits the
      largest of them: 4095 is white in an image whose largest value is 3000. Negative values and
      values above 65535 are scaled by the image's own range, from its lowest to its highest value.
    - Floats from 0 to 1 are scaled by 255, floats from 0 to 255 only rounded, others scaled by the
      image's own range. NaN becomes black, and the range ignores infinity.

    Raises UserError if no value is finite.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype("uint8") * np.uint8(255)
    black, white = _float_range(values) if values.dtype.kind == "f" else _integer_range(values)
    dtype = np.promote_types(values.dtype, "float32")
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values.astype(dtype)
        scaled -= black
        scaled *= 255 / ((white - black) or 1)
    np.nan_to_num(scaled, copy=False, nan=0, posinf=255, neginf=0)
    return scaled.round(out=scaled).clip(0, 255, out=scaled).astype("uint8")


def scale_colours(image: ImageFile, open_again: Callable[[], ImageFile]) -> None:
    """Decodes an image that Pillow has opened. If its file has 16 bits a channel and uses at most
    14 of them, scales its colours and its opacity. `open_again` opens the file once more."""
    raw_modes = [_RAW_MODE.fullmatch(_raw_mode(tile)) for tile in image.tile]
    image.load()
    if not raw_modes or not all(raw_modes):
        return
    highest = [high for _, high in image.getextrema()]
    tables = [_tables(highest[:3])] * 3 + [_tables(highest[3:])] * len(highest[3:])
    if tables.count(_UNSCALED) == len(tables):
        return
    high_table, low_table = (sum(parts, []) for parts in zip(*tables, strict=True))
    low_bytes = _decode_low_bytes(open_again(), raw_modes)
    for top in range(0, image.height, _ROWS):
        box = 0, top, image.width, min(top + _ROWS, image.height)
        high, low = image.crop(box).point(high_table), low_bytes.crop(box).point(low_table)
        image.paste(ImageChops.add(high, low), box)


def _integer_range(values: np.ndarray) -> tuple[int, int]:
    low, high = int(values.min()), int(values.max())
    for bits in _BIT_DEPTHS:
        if 0 <= low and high < 2**bits:
            return 0, 2**bits - 1
    return low, high


def _float_range(values: np.ndarray) -> tuple[float, float]:
    finite = np.isfinite(values)
    if not finite.any():
        raise UserError("Expected finite pixel values, got none. Check the image.")
    low = float(values.min(where=finite, initial=np.inf))
    high = float(values.max(where=finite, initial=-np.inf))
    for white in (1, 255):
        if 0 <= low and high <= white:
            return 0, white
    return low, high


def _raw_mode(tile: tuple) -> str:
    arguments = tile[3]
    return arguments if isinstance(arguments, str) else str(arguments[0])


def _tables(highest: Sequence[int]) -> _Tables:
    """The tables that scale values whose high bytes are at most the `highest`."""
    for bits in _BIT_DEPTHS[:-1]:
        if max(highest, default=255) < 2 ** (bits - 8):
            factor = 255 / (2**bits - 1)
            high = [min(round(256 * byte * factor), 255) for byte in range(256)]
            return high, [round(byte * factor) for byte in range(256)]
    return _UNSCALED


def _decode_low_bytes(image: ImageFile, raw_modes: Sequence[re.Match]) -> Image.Image:
    """Decodes an opened image to the low bytes of its channels."""
    tiles = zip(image.tile, raw_modes, strict=True)
    image.tile = [_with_raw_mode(tile, _low_mode(*raw_mode.groups())) for tile, raw_mode in tiles]
    image.load()
    if raw_modes[0][1] == "LA":  # its four bytes are high and low grey, high and low opacity
        _, grey, _, opacity = image.split()
        return Image.merge("RGBA", (grey, grey, grey, opacity))
    return image


def _low_mode(channels: str, order: str) -> str:
    return "RGBA" if channels == "LA" else f"{channels};16{_OTHER_ORDER[order]}"


def _with_raw_mode(tile: tuple, raw_mode: str) -> tuple:
    *place, arguments = tile
    return *place, raw_mode if isinstance(arguments, str) else (raw_mode, *arguments[1:])
