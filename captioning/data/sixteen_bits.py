"""Colours of 16 bits a channel, of which Pillow keeps the high byte alone.

Cameras and scanners often store values of 10, 12 or 14 bits in such files. Their high bytes are
small, so that the image would be nearly black. Here their low bytes are read, too, and the values
are scaled by the smallest bit depth that fits the largest of them, as those of grey images are.
"""

import re
from collections.abc import Callable, Sequence

from PIL import Image, ImageChops
from PIL.ImageFile import ImageFile

_DEPTHS = (8, 10, 12, 14)  # bits of the values that are stored in 16

# Of 16-bit values, Pillow takes the byte that is the high one in the named order: big-endian,
# little-endian or that of this processor. In the other order, the same byte is the low one.
_RAW_MODE = re.compile(r"(RGB|RGBA|RGBX|LA);16([BLN])")
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B"}  # processors that run this are little-endian

_ROWS = 512  # that are scaled at a time

# For high and for low bytes: byte -> part of the scaled value.
_Tables = tuple[list[int], list[int]]
_UNSCALED: _Tables = list(range(256)), [0] * 256


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


def _raw_mode(tile: tuple) -> str:
    arguments = tile[3]
    return arguments if isinstance(arguments, str) else str(arguments[0])


def _tables(highest: Sequence[int]) -> _Tables:
    """The tables that scale values whose high bytes are at most the `highest`."""
    for bits in _DEPTHS:
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
