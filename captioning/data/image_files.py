"""Image files: opens and decodes them within the limits of `captioning.data.image_limits`, and
repairs files whose pixels are whole although Pillow refuses them.

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
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from captioning.data.bit_depths import scale_colours
from captioning.data.image_limits import (
    PNG_START,
    Refusal,
    count_buffered_scans,
    count_halvings,
    pixel_limit,
    refuse_costly_file,
    refuse_costly_jpeg,
    too_large,
)

_LARGE = 2**24

# Size of the memory blocks of a large image, 64 MiB. Linux keeps smaller blocks for the thread that
# freed them, but another thread may decode the next large image.
_BLOCK_BYTES = 2**26

MAX_REPAIRED_BYTES = 10**8  # a file is repaired in memory

_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_HEIF_BRANDS = b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split()

# Ancillary PNG chunks that change the picture: transparency and EXIF with the orientation.
_VISIBLE_CHUNKS = (b"tRNS", b"eXIf")

# Stands in for compressed pixels. It changes the picture where compressed pixels are missing.
_NOISE = bytes(1 + 89 * number % 251 for number in range(1000))

_large_image = Lock()


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
    """Decodes the image in the file and returns the result of `convert`. A JPEG or JPEG 2000 file
    is reduced to a half, a quarter and so on, as long as at least `at_least` pixels a side are
    left, or to fit the budget. Raises Refusal for an image beyond the budget, and any error of
    Pillow for a damaged one."""
    with _identify(file) as image:
        size, limit = image.size, pixel_limit(image)
        if not at_least and size[0] * size[1] > limit:
            at_least = isqrt(limit) // 2
        width, height = _reduce(image, at_least, file)
        if width * height > limit:
            raise too_large(size, limit)
        with _only_large_image() if is_large((width, height)) else nullcontext():
            scale_colours(image, open_again=lambda: _identify(file))
            return convert(image)


def is_large(size: tuple[int, int]) -> bool:
    """Whether an image takes so much memory that there should be one of its kind at a time."""
    width, height = size
    return width * height > _LARGE


def repaired_versions(file: IO[bytes]) -> list[IO[bytes]]:
    """Returns versions of a damaged image file that Pillow may read: PNG without its ancillary
    chunks, JPEG with an end marker. The picture is whole if all versions can be read and show the
    same pixels. Returns an empty list for a file that cannot be repaired."""
    file.seek(0)
    content = file.read(MAX_REPAIRED_BYTES + 1)
    if len(content) > MAX_REPAIRED_BYTES:
        return []
    if content.startswith(PNG_START):
        return [BytesIO(PNG_START + b"".join(_needed_chunks(content)))]
    if content.startswith(_JPEG_START):
        content = content.rstrip(b"\xff")  # half of an end marker
        return [BytesIO(content + _JPEG_END), BytesIO(content + _NOISE + _JPEG_END)]
    return []


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields name and bytes of each chunk of a PNG file. The bytes are the length of the data (4
    bytes), the name (4), the data, and a checksum (4). The last chunk may be cut off."""
    position = len(PNG_START)
    while name := content[position + 4 : position + 8]:
        end = position + 12 + int.from_bytes(content[position : position + 4])
        yield name, content[position:end]
        position = end


@contextmanager
def _only_large_image() -> Iterator[None]:
    """Inside the block, no other large image is decoded, and Pillow takes memory in large blocks,
    which are free for all threads afterwards."""
    with _large_image:
        before = Image.core.get_block_size()
        Image.core.set_block_size(_BLOCK_BYTES)
        try:
            yield
        finally:
            Image.core.set_block_size(before)


def _identify(file: IO[bytes]) -> ImageFile:
    file.seek(0)
    start = file.read(12)
    if start.startswith(_JPEG_START):
        buffered_scans = count_buffered_scans(file)
        file.seek(0)
        image = JpegImageFile(file)  # Image.open would refuse a large one before it is reduced
        refuse_costly_jpeg(image, buffered_scans)
        return image
    refuse_costly_file(file)
    file.seek(0)
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


def _reduce(image: ImageFile, at_least: int | None, file: IO[bytes]) -> tuple[int, int]:
    """Has the image decoded at a fraction of its size, if its format allows it. Returns the size
    that it will have."""
    if image.format == "JPEG2000":
        halvings = count_halvings(file)
        while halvings and min(image.size) >> halvings < (at_least or max(image.size)):
            halvings -= 1
        image.reduce = halvings
        return image.width >> halvings, image.height >> halvings
    if at_least:
        image.draft(None, (at_least, at_least))
    return image.size


@cache
def _register_heif() -> bool:
    """Makes Pillow read HEIC images from now on. Returns False if pillow-heif is not installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _needed_chunks(content: bytes) -> Iterator[bytes]:
    """The chunks of a PNG file that are needed to decode its pixels or that change the picture."""
    for name, chunk in png_chunks(content):
        is_ancillary = name[0] & 0x20  # its name begins with a small letter
        is_whole = zlib.crc32(chunk[4:-4]).to_bytes(4) == chunk[-4:]
        if not is_ancillary or name in _VISIBLE_CHUNKS and is_whole:
            yield chunk
