"""Opens and decodes image files within a budget of pixels, so that no file exhausts the memory.

The budget is MAX_PIXELS, counted after a JPEG file is reduced; decoding so many takes about 0.6 GB.
Images of more than `_LARGE` pixels are decoded one at a time, whatever the number of threads.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from io import BytesIO
from math import isqrt
from threading import Lock
from typing import IO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from captioning.data.image_repair import JPEG_START

MAX_PIXELS = 2**26  # 8192 x 8192
_LARGE = 2**24

# Half of the budget is for images whose decoding takes twice the memory a pixel.
_COSTLY_FORMATS = ("JPEG2000", "WEBP")
_COSTLY_MODES = ("I", "F")  # 16-bit, 32-bit and float

# Limits of a JPEG file before it is reduced. The decoder keeps only a few lines of most files in
# memory, but all coefficients of progressive ones, two bytes each.
MAX_JPEG_PIXELS = 2**30
MAX_PROGRESSIVE_COEFFICIENTS = 320_000_000

_large_image = Lock()


class Refusal(Exception):
    """A file that is not decoded, for a `reason` and with an `advice`, in words."""

    def __init__(self, reason: str, advice: str):
        super().__init__(reason, advice)


@contextmanager
def open_file(source: str | os.PathLike | bytes) -> Iterator[IO[bytes]]:
    """A file, or its content, for reading. Raises Refusal for what is no ordinary file: opening a
    pipe may wait for ever."""
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
    """Decodes the image in the file, and returns what `convert` makes of it. A JPEG file is reduced
    to a half, a quarter or an eighth, as long as `at_least` so many pixels a side are left, or to
    fit the budget. Raises Refusal for an image beyond the budget, and for a damaged one whatever
    Pillow raises."""
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


def _identify(file: IO[bytes]) -> Image.Image:
    file.seek(0)
    start = file.read(12)
    file.seek(0)
    if start.startswith(JPEG_START):
        return JpegImageFile(file)  # Image.open would refuse a large one before it is reduced
    is_heif = start[4:8] == b"ftyp" and start[8:11] != b"avi"  # of AVIF, which Pillow reads
    if is_heif and not _register_heif() and start[8:11] in (b"hei", b"hev"):
        raise Refusal(
            "is a HEIC image, which only pillow-heif reads",
            "Install it (pip install pillow-heif), or save the image as JPEG.",
        )
    try:
        return Image.open(file)
    except Image.DecompressionBombError as error:
        raise Refusal(f"is too large ({error})", "Scale it down.") from error


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


@cache
def _register_heif() -> bool:
    """Whether Pillow reads HEIC from now on."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True
