"""Writes copies of images with the caption as their description, and changes nothing else in them.

pyexiv2 (under the GPL, needed only here) replaces metadata without recompressing the image, as
Pillow would.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyexiv2

from captioning.data.image_files import png_chunks
from captioning.data.image_limits import PNG_START
from captioning.errors import UserError
from captioning.files import write_atomically

_SILENT = 4  # log level of pyexiv2, which warns of the metadata of some cameras
_JPEG_START = b"\xff\xd8"
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"

# The beginnings of the EXIF and the IPTC segments of a JPEG file, and the names of the chunks of a
# PNG file, which are removed if pyexiv2 cannot read them.
_JPEG_METADATA = (b"Exif\0\0", b"Photoshop 3.0\0")
_PNG_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")


def choose_copy_paths(image_paths: Iterable[str], folder: Path) -> dict[str, Path]:
    """Returns image path -> path of its copy. A copy has the place below `folder` that its image
    has below the deepest folder that holds all images. Raises UserError if there is no such
    folder, because the images are on several drives of Windows."""
    absolute_paths = {path: Path(os.path.abspath(path)) for path in image_paths}
    if not absolute_paths:
        return {}
    try:
        shared = os.path.commonpath([path.parent for path in absolute_paths.values()])
    except ValueError as error:
        raise UserError(
            "Expected images on one drive to copy, got images on several. Caption those of each "
            "drive separately."
        ) from error
    return {
        path: folder / absolute.relative_to(shared) for path, absolute in absolute_paths.items()
    }


def write_with_description(image_path: Path, caption: str, copy_path: Path) -> None:
    """Writes a copy with the caption as its description, in EXIF (ImageDescription) and in XMP
    (dc:description), because some programs read only one of them.

    A copy with the same content stays as it is. Raises FileExistsError if `copy_path` is any other
    file, such as the image itself, and UserError if the format cannot hold a description.
    """
    content = _describe(image_path, caption)
    if not copy_path.exists():
        with write_atomically(copy_path) as file:
            file.write(content)
    elif copy_path.read_bytes() != content:
        raise FileExistsError(
            f"Expected no file or the same copy of {image_path} at {copy_path}, got another file. "
            "Name another folder for the copies, or move that file."
        )


def _describe(image_path: Path, caption: str) -> bytes:
    pyexiv2.set_log_level(_SILENT)
    content = image_path.read_bytes()
    problem = None
    for version in _with_less_metadata(content):
        try:
            return _add_description(version, caption)
        except RuntimeError as error:  # the only exception of pyexiv2
            problem = problem or error
    raise UserError(
        "Expected JPEG, PNG, TIFF, WebP or JPEG 2000, which hold a description, got "
        f"{image_path} ({problem}). Save it as one of these first."
    ) from problem


def _with_less_metadata(content: bytes) -> Iterator[bytes]:
    """Yields the content of the file, and versions without the metadata that may be damaged."""
    yield content
    if content.startswith(_JPEG_START):
        for beginning in _JPEG_METADATA:
            content = _remove_segments(content, beginning)
            yield content
    if content.startswith(PNG_START):
        yield _remove_chunks(content)


def _add_description(content: bytes, caption: str) -> bytes:
    with pyexiv2.ImageData(content) as image:
        image.modify_exif({"Exif.Image.ImageDescription": caption})
        descriptions = image.read_xmp().get("Xmp.dc.description", {})  # by language
        others = descriptions if isinstance(descriptions, dict) else {}
        image.modify_xmp({"Xmp.dc.description": others | {'lang="x-default"': caption}})
        return image.get_bytes()


def _remove_segments(jpeg: bytes, beginning: bytes) -> bytes:
    """Removes the segments with this beginning, which follow a marker and a length of two bytes
    each."""
    position = 2
    while (start := jpeg.find(beginning, position) - 4) >= 0:
        if jpeg[start] == 0xFF:
            length = int.from_bytes(jpeg[start + 2 : start + 4], "big")
            jpeg = jpeg[:start] + jpeg[start + 2 + length :]
        position = max(start, position) + 1
    return jpeg


def _remove_chunks(png: bytes) -> bytes:
    """Removes the chunks of metadata, and adds the last chunk if it is missing."""
    removed = (*_PNG_METADATA, b"IEND")
    kept = [chunk for name, chunk in png_chunks(png) if name not in removed]
    return b"".join([PNG_START, *kept, _PNG_END])
