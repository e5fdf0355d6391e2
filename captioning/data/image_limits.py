"""Limits of image files: a budget of pixels, and limits on other parts of a file that cost a
decoder memory or time. They keep a command below 1 GB and 10 seconds whatever file it reads.

The budget is MAX_PIXELS, counted after a file is decoded at a fraction of its size. Decoding so
many takes about 0.6 GB: four bytes for each, in two or three copies. `docs/reliability.md` lists
files of all kinds with the memory and the time that they take.
"""

import re
import struct
from collections.abc import Iterator
from math import ceil
from typing import IO

from PIL import Image, JpegImagePlugin

MAX_PIXELS = 2**26  # 8192 x 8192

# Shares of the budget for decoders that take more memory or time for each pixel.
_SHARES_OF_FORMATS = {"AVIF": 3 / 4, "HEIF": 3 / 4, "WEBP": 1 / 2, "JPEG2000": 1 / 8}
_WIDE_MODES = ("I", "F")  # 16-bit, 32-bit and float
_SHARE_OF_WIDE_MODES = 1 / 2
_SHARE_OF_PYTHON = 1 / 64  # Pillow's decoders in Python take up to six seconds a megapixel

# A JPEG file is reduced while it is decoded. The decoder keeps only a few lines of most files in
# memory; of files with several scans, it keeps all coefficients, two bytes each.
MAX_JPEG_PIXELS = 2**30
MAX_COEFFICIENTS = 320_000_000
MAX_SCANNED_PIXELS = 4 * 10**9  # of all scans together; a progressive file has about ten

# Pillow reads these one by one. Ordinary files have at most some hundreds or, of PNG, thousands.
MAX_JPEG_SEGMENTS = 2_000
MAX_JPEG_METADATA = 2**25  # bytes before the pixels
MAX_PNG_CHUNKS = 100_000
MAX_TIFF_VALUES = 200_000  # of a tag; an image has one for each strip
MAX_JPEG_2000_BOXES = 1_000  # before the one that contains the codestream
MAX_CODE_BLOCKS = 2**20  # of a JPEG 2000 file: OpenJPEG needs some 400 bytes for each
MAX_ICON_PIXELS = 2**24  # of an image in an icon file, which Pillow decodes before it checks it
MAX_ICON_BYTES = 10**8  # of an icon file, in which its images are looked for

PNG_START = b"\x89PNG\r\n\x1a\n"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ICON_STARTS = (b"\0\0\1\0", b"icns")
_BYTES_AND_TEXT = (1, 2, 7)  # types of the values of a tag, which are read at once
_TILE_SIDES = (322, 323)
_POSTSCRIPT_STARTS = (b"%!PS", b"\xc5\xd0\xd3\xc6")

# Markers of JPEG, and then of JPEG 2000.
_PROGRESSIVE = b"\xc2\xc6\xca\xce"
_FRAMES = bytes(set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC})  # start of frame: size and channels
_WITHOUT_LENGTH = b"\x00\x01\xd0\xd1\xd2\xd3\xd4\xd5\xd6\xd7\xd8"
_CODESTREAM_START = b"\xff\x4f\xff\x51"
_SIZE, _END_OF_HEADER = b"\xff\x51", b"\xff\x90"
# The coding style, of all channels or of one: marker -> positions of the flags and the parameters.
_CODING_STYLES = {b"\xff\x52": (0, 5), b"\xff\x53": (1, 2)}

# An image in an icon file: PNG or JPEG 2000, with its width and height.
_ICON = re.compile(
    rb"\x89PNG\r\n\x1a\n.{4}IHDR(.{4})(.{4})|\xff\x4f\xff\x51.{4}(.{4})(.{4})", re.DOTALL
)


class Refusal(Exception):
    """A file that is not decoded. Its arguments are the reason and the advice that follow the name
    of the file in the message."""


def refuse_costly_file(file: IO[bytes]) -> None:
    """Raises Refusal for a file that would cost Pillow much memory or time before it knows the size
    of the image; and for PostScript, a language whose programs Pillow would have run."""
    file.seek(0)
    start = file.read(8)
    if start == PNG_START:
        _refuse_many_png_chunks(file)
    elif start.startswith(_TIFF_STARTS):
        _refuse_costly_tiff(file, "little" if start[:1] == b"I" else "big", b"+" in start[:4])
    elif start.startswith(_ICON_STARTS):
        _refuse_large_icons(file)
    elif start.startswith(_POSTSCRIPT_STARTS):
        raise Refusal("is PostScript, which is a program", "Convert it to PNG.")


def count_buffered_scans(file: IO[bytes]) -> int:
    """Returns the number of scans of a JPEG file if the decoder keeps all coefficients in memory
    until it has read them: if the file is progressive, or has the channels one after the other.
    Returns 0 for other files. Raises Refusal for one with too much metadata."""
    file.seek(0)
    channels, is_progressive = 0, False
    for _ in range(MAX_JPEG_SEGMENTS):
        if file.read(1) != b"\xff":
            continue
        marker = file.read(1)
        if marker == b"\xff":
            file.seek(-1, 1)
        elif marker and marker not in _WITHOUT_LENGTH:
            length = int.from_bytes(file.read(2))
            content = file.read(min(max(length - 2, 0), 6))
            if marker == b"\xda":
                is_buffered = is_progressive or content[:1] < bytes([channels])
                return _count_scans(file) if is_buffered else 0
            if marker in _FRAMES and len(content) == 6:
                channels, is_progressive = content[5], marker in _PROGRESSIVE
            file.seek(max(length - 2 - len(content), 0), 1)
        if file.tell() > MAX_JPEG_METADATA:
            break
    else:
        if not file.read(1):
            return 0  # Pillow names the error of a file that ends too early
    raise Refusal("has too much metadata before its pixels", "Save it without metadata.")


def refuse_costly_jpeg(image: JpegImagePlugin.JpegImageFile, buffered_scans: int) -> None:
    """Raises Refusal if a JPEG file is too large to be decoded even at a fraction of its size."""
    limit = MAX_JPEG_PIXELS
    if buffered_scans:
        samples = [across * down for _, across, down, _ in image.layer]  # a block, by channel
        limit = int(MAX_COEFFICIENTS * max(samples) / sum(samples))
        limit = min(limit, MAX_SCANNED_PIXELS // buffered_scans)
    if image.width * image.height > limit:
        raise too_large(image.size, limit)


def count_halvings(file: IO[bytes]) -> int:
    """Returns how often the sides of the image in a JPEG 2000 file can be halved while it is
    decoded; 0 for a damaged header. Raises Refusal for a file of too many parts."""
    _find_codestream(file)
    size, levels, block_pixels = b"", [], []
    try:
        for marker, content in _header_segments(file):
            if marker == _SIZE:
                size = content[2:36]
            elif marker in _CODING_STYLES:
                flags, parameters = _CODING_STYLES[marker]
                levels.append(content[parameters])
                block_pixels.append(_code_block_pixels(content[parameters:], content[flags] & 1))
        right, bottom, left, top, tile_width, tile_height, channels = struct.unpack(">6I8xH", size)
        width, height = right - left, bottom - top
        tiles = ceil(width / tile_width) * ceil(height / tile_height)
        bands = 3 * max(levels) + 1  # of each channel of a tile; a band has one block at least
        blocks = channels * (width * height // min(block_pixels) + tiles * bands)
    except (ValueError, IndexError, ZeroDivisionError, struct.error):
        return 0  # decoding it raises the error
    if blocks > MAX_CODE_BLOCKS:
        raise Refusal(f"consists of {blocks:,} code-blocks", "Save it as JPEG or PNG.")
    return min(levels)


def pixel_limit(image: Image.Image) -> int:
    """Returns the number of pixels that are decoded of an opened image like this one."""
    share = _SHARES_OF_FORMATS.get(image.format, 1)
    if image.mode.startswith(_WIDE_MODES):
        share = min(share, _SHARE_OF_WIDE_MODES)
    if any(tile[0] in Image.DECODERS for tile in image.tile):
        share = min(share, _SHARE_OF_PYTHON)
    return int(MAX_PIXELS * share)


def too_large(size: tuple[int, int], limit: int) -> Refusal:
    width, height = size
    return Refusal(
        f"is too large ({width:,} x {height:,} pixels; at most {limit:,} are decoded)",
        "Scale it down.",
    )


def _count_scans(file: IO[bytes]) -> int:
    parts = iter(lambda: file.read(2**20), b"")
    return 1 + sum(part.count(b"\xff\xda") for part in parts)


def _find_codestream(file: IO[bytes]) -> None:
    """Moves behind the first marker of the codestream, or to the end of the file."""
    position = 0
    for _ in range(MAX_JPEG_2000_BOXES):
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


def _header_segments(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yields marker and content of each segment of the main header (ISO/IEC 15444-1, annex A)."""
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


def _refuse_many_png_chunks(file: IO[bytes]) -> None:
    for _ in range(MAX_PNG_CHUNKS):
        length_and_name = file.read(8)
        if len(length_and_name) < 8:
            return
        file.seek(int.from_bytes(length_and_name[:4]) + 4, 1)
    raise Refusal(f"has more than {MAX_PNG_CHUNKS:,} chunks", "Save it again as PNG.")


def _refuse_costly_tiff(file: IO[bytes], order: str, is_big: bool) -> None:
    tile_pixels = 1
    for tag, kind, count, value in _tiff_tags(file, order, 8 if is_big else 4):
        if kind not in _BYTES_AND_TEXT and count > MAX_TIFF_VALUES:
            raise Refusal(f"has more than {MAX_TIFF_VALUES:,} parts", "Save it as PNG.")
        if tag in _TILE_SIDES:
            tile_pixels *= value
    if tile_pixels > MAX_PIXELS:
        raise Refusal(f"has tiles of {tile_pixels:,} pixels", "Save it as PNG.")


def _tiff_tags(file: IO[bytes], order: str, word: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields for each tag of the first directory its number, its type, the number of its values
    and the first of them, if it is in the directory. A `word` is the bytes of an offset."""

    def number(size: int) -> int:
        return int.from_bytes(file.read(size), order)

    file.seek(word)
    file.seek(number(word))
    for _ in range(min(number(2 if word == 4 else 8), MAX_TIFF_VALUES)):
        tag, kind, count = number(2), number(2), number(word)
        value = file.read(word)
        if not value:
            return
        yield tag, kind, count, int.from_bytes(value[:2] if kind == 3 else value[:4], order)


def _refuse_large_icons(file: IO[bytes]) -> None:
    file.seek(0)
    for match in _ICON.finditer(file.read(MAX_ICON_BYTES)):
        width, height = (int.from_bytes(side) for side in match.groups() if side is not None)
        if width * height > MAX_ICON_PIXELS:
            raise too_large((width, height), MAX_ICON_PIXELS)
