"""JPEG 2000 files: reads from their main header at which fractions of its size an image can be
decoded, and refuses files of so many parts that decoding them takes too much memory.

The header is that of ISO/IEC 15444-1, annex A: segments of a marker, a length and parameters.
"""

import struct
from collections.abc import Iterator
from math import ceil
from typing import IO

from captioning.data.image_limits import Refusal

MAX_CODE_BLOCKS = 2**20  # OpenJPEG needs some 400 bytes for each; ordinary ones have 4,096 pixels

_CODESTREAM_START = b"\xff\x4f\xff\x51"
_MAX_BOXES = 1_000  # before the codestream: many files consist of boxes, one of which contains it

_SIZE, _END_OF_HEADER = b"\xff\x51", b"\xff\x90"
# The coding style, of all channels or of one: marker -> positions of the flags and the parameters.
_CODING_STYLES = {b"\xff\x52": (0, 5), b"\xff\x53": (1, 2)}


def count_halvings(file: IO[bytes]) -> int:
    """Returns how often the sides of the image in a JPEG 2000 file can be halved while it is
    decoded; 0 for a damaged header. Raises Refusal for a file of too many parts."""
    _find_codestream(file)
    levels, block_pixels = [], []
    try:
        for marker, content in _segments(file):
            if marker == _SIZE:
                right, bottom, left, top, tile_width, tile_height, _, _, channels = struct.unpack(
                    ">8IH", content[2:36]
                )
            elif marker in _CODING_STYLES:
                flags, parameters = _CODING_STYLES[marker]
                levels.append(content[parameters])
                block_pixels.append(_code_block_pixels(content[parameters:], content[flags] & 1))
        width, height = right - left, bottom - top
        tiles = ceil(width / tile_width) * ceil(height / tile_height)
        bands = 3 * max(levels) + 1  # of each channel of a tile; a band has one block at least
        blocks = channels * (width * height // min(block_pixels) + tiles * bands)
    except (ValueError, IndexError, NameError, ZeroDivisionError, struct.error):
        return 0  # decoding it raises the error
    if blocks > MAX_CODE_BLOCKS:
        raise Refusal(f"consists of {blocks:,} code-blocks", "Save it as JPEG or PNG.")
    return min(levels)


def _find_codestream(file: IO[bytes]) -> None:
    """Moves behind the first marker of the codestream, or to the end of the file."""
    position = 0
    for _ in range(_MAX_BOXES):
        file.seek(position)
        start = file.read(16)
        if start.startswith(_CODESTREAM_START):
            file.seek(position + 2)
            return
        length, name, long_length = struct.unpack(">I4sQ", start.ljust(16, b"\0"))
        if name == b"jp2c":
            position += 16 if length == 1 else 8
        else:
            position += max(long_length if length == 1 else length, 8)
    file.seek(0, 2)


def _segments(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yields marker and content of each segment of the main header."""
    while (marker := file.read(2)) not in (b"", _END_OF_HEADER):
        yield marker, file.read(max(int.from_bytes(file.read(2)) - 2, 0))


def _code_block_pixels(parameters: bytes, has_precincts: int) -> int:
    """The pixels of the smallest code-block of a coding style. A block is at most half as wide and
    half as high as its precinct."""
    width, height = parameters[1] + 2, parameters[2] + 2  # logarithms to base 2
    for precinct in parameters[5:] if has_precincts else b"":
        width = min(width, max((precinct & 15) - 1, 0))
        height = min(height, max((precinct >> 4) - 1, 0))
    return 2 ** (width + height)
