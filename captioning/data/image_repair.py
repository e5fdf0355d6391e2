"""Image files whose pixels are whole although Pillow refuses them, as viewers and browsers show
them: PNG with oversized or damaged side chunks, JPEG without its end marker."""

import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import IO

MAX_BYTES = 10**8  # of a file that is read into memory

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"

# Side chunks that change what is seen: transparency and EXIF, which tells the orientation.
_VISIBLE_CHUNKS = (b"tRNS", b"eXIf")

# Stands for coded pixels. Where coded pixels are missing, it changes the picture.
_NOISE = bytes(1 + 89 * number % 251 for number in range(1000))


def repaired_versions(file: IO[bytes]) -> list[IO[bytes]]:
    """Versions of an image file that Pillow may read. The file holds the whole picture if all of
    them can be read and show the same pixels. Empty if there is nothing to try."""
    file.seek(0)
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        return []
    if content.startswith(PNG_START):
        return [BytesIO(PNG_START + b"".join(_needed_chunks(content)))]
    if content.startswith(JPEG_START):
        content = content.rstrip(b"\xff")  # half of an end marker
        return [BytesIO(content + JPEG_END), BytesIO(content + _NOISE + JPEG_END)]
    return []


def _needed_chunks(content: bytes) -> Iterator[bytes]:
    """The chunks without which the pixels of a PNG file cannot be decoded, or look otherwise. Each
    is its length in 4 bytes, its name in 4 bytes, its data and a checksum in 4 bytes."""
    position = len(PNG_START)
    while name := content[position + 4 : position + 8]:
        end = position + 12 + int.from_bytes(content[position : position + 4])
        chunk = content[position:end]
        is_side_chunk = name[0] & 0x20  # its name begins with a small letter
        is_whole = zlib.crc32(chunk[4:-4]).to_bytes(4) == chunk[-4:]
        if not is_side_chunk or name in _VISIBLE_CHUNKS and is_whole:
            yield chunk
        position = end
