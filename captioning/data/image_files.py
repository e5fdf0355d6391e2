"""Image files: opens and decodes them within a budget of pixels, so that no file exhausts the
memory, and repairs files whose pixels are whole although Pillow refuses them.

The budget is MAX_PIXELS, counted after a JPEG file is reduced; decoding so many takes about 0.6 GB.
Images of more than `_LARGE` pixels are decoded one at a time, whatever the number of threads.
"""

import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from io import BytesIO
from math import isqrt
from threading import Lock
from typing import IO

from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

MAX_PIXELS = 2**26  # 8192 x 8192
_LARGE = 2**24

# Half of the budget is for images whose decoding takes twice the memory a pixel.
_COSTLY_FORMATS = ("JPEG2000", "WEBP")
_COSTLY_MODES = ("I", "F")  # 16-bit, 32-bit and float

# Limits of a JPEG file before it is reduced. The decoder keeps only a few lines of most files in
# memory, but all coefficients of progressive ones, two bytes each.
MAX_JPEG_PIXELS = 2**30
MAX_PROGRESSIVE_COEFFICIENTS = 320_000_000

MAX_REPAIRED_BYTES = 10**8  # a file is repaired in memory

_PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_HEIF_BRANDS = b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split()

# Ancillary PNG chunks that change the picture: transparency and EXIF with the orientation.
_VISIBLE_CHUNKS = (b"tRNS", b"eXIf")

# Stands in for compressed pixels. It changes the picture where compressed pixels are missing.
_NOISE = bytes(1 + 89 * number % 251 for number in range(1000))

_large_image = Lock()


class Refusal(Exception):
    """A file that is not decoded, for a `reason` and with an `advice`, in words."""

    def __init__(self, reason: str, advice: str):
        super().__init__(reason, advice)


@contextmanager
def open_file(source: str | os.PathLike | bytes) -> Iterator[IO[bytes]]:
    """Opens a file, or its content, for reading. Raises Refusal for anything but an ordinary file:
    opening a pipe may never return."""
    if isinstance(source, (bytes, bytearray)):
        yield BytesIO(source)
        return
    mode = os.stat(source).st_mode
    if stat.S_ISDIR(mode):
        raise Refusal("is a folder, not an image", "Name the image files in it.")
    if not stat.S_ISREG(mode):
        raise Refusal("is a pipe, a socket or a device, not a file", "Save the image to a file.")
    with open(source, "rb") as file:
        yield file


def decode(
    file: IO[bytes], at_least: int | None, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Decodes the image in the file and returns the result of `convert`. A JPEG file is reduced to
    a half, a quarter or an eighth, as long as `at_least` so many pixels a side are left, or to fit
    the budget. Raises Refusal for an image beyond the budget, and any error of Pillow for a damaged
    one."""
    with _identify(file) as image:
        width, height = image.size
        if isinstance(image, JpegImageFile):
            _refuse_absurd_size(image)
            if not at_least and width * height > MAX_PIXELS:
                at_least = isqrt(MAX_PIXELS) // 2
        if at_least:
            image.draft(None, (at_least, at_least))
        pixels = image.width * image.height
        is_costly = image.format in _COSTLY_FORMATS or image.mode.startswith(_COSTLY_MODES)
        limit = MAX_PIXELS // 2 if is_costly else MAX_PIXELS
        if pixels > limit:
            raise _too_large(width, height, limit)
        with _large_image if pixels > _LARGE else nullcontext():
            return convert(image)


def repaired_versions(file: IO[bytes]) -> list[IO[bytes]]:
    """Returns versions of a damaged image file that Pillow may read: PNG without its ancillary
    chunks, JPEG with an end marker. The picture is whole if all versions can be read and show the
    same pixels. Returns an empty list for a file that cannot be repaired."""
    file.seek(0)
    content = file.read(MAX_REPAIRED_BYTES + 1)
    if len(content) > MAX_REPAIRED_BYTES:
        return []
    if content.startswith(_PNG_START):
        return [BytesIO(_PNG_START + b"".join(_needed_chunks(content)))]
    if content.startswith(_JPEG_START):
        content = content.rstrip(b"\xff")  # half of an end marker
        return [BytesIO(content + _JPEG_END), BytesIO(content + _NOISE + _JPEG_END)]
    return []


def _identify(file: IO[bytes]) -> Image.Image:
    file.seek(0)
    start = file.read(12)
    file.seek(0)
    if start.startswith(_JPEG_START):
        return JpegImageFile(file)  # Image.open would refuse a large one before it is reduced
    is_heif = start[4:8] == b"ftyp" and start[8:] in _HEIF_BRANDS
    can_read_heif = is_heif and _register_heif()
    try:
        return Image.open(file)
    except Image.DecompressionBombError as error:
        raise Refusal(f"is too large ({error})", "Scale it down.") from error
    except UnidentifiedImageError as error:
        if is_heif and not can_read_heif:
            raise Refusal(
                "is a HEIC image, and pillow-heif is not installed",
                'Run `pip install ".[heif]"` in the folder of the clone, or save it as JPEG.',
            ) from error
        raise


@cache
def _register_heif() -> bool:
    """Makes Pillow read HEIC images from now on. Returns False if pillow-heif is not installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _refuse_absurd_size(image: JpegImageFile) -> None:
    limit = MAX_JPEG_PIXELS
    if "progressive" in image.info:
        samples = [across * down for _, across, down, _ in image.layer]  # a block, by channel
        limit = int(MAX_PROGRESSIVE_COEFFICIENTS * max(samples) / sum(samples))
    if image.width * image.height > limit:
        raise _too_large(image.width, image.height, limit)


def _too_large(width: int, height: int, limit: int) -> Refusal:
    return Refusal(
        f"is too large ({width:,} x {height:,} pixels; at most {limit:,} are decoded)",
        "Scale it down.",
    )


def _needed_chunks(content: bytes) -> Iterator[bytes]:
    """The chunks of a PNG file that are needed to decode its pixels or that change the picture.
    Each is its length in 4 bytes, its name in 4 bytes, its data and a checksum in 4 bytes."""
    position = len(_PNG_START)
    while name := content[position + 4 : position + 8]:
        end = position + 12 + int.from_bytes(content[position : position + 4])
        chunk = content[position:end]
        is_ancillary = name[0] & 0x20  # its name begins with a small letter
        is_whole = zlib.crc32(chunk[4:-4]).to_bytes(4) == chunk[-4:]
        if not is_ancillary or name in _VISIBLE_CHUNKS and is_whole:
            yield chunk
        position = end
