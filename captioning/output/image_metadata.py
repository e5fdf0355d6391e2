"""Writes copies of images with the caption as their description, and changes nothing else in them.

pyexiv2 (under the GPL, needed only here) replaces metadata without recompressing the image, as
Pillow would.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import pyexiv2

from captioning.errors import UserError
from captioning.files import write_atomically

_SILENT = 4  # log level of pyexiv2, which warns of the metadata of some cameras
# The beginnings of the EXIF and the IPTC segment of a JPEG, which are removed if pyexiv2 cannot
# read them.
_JPEG_METADATA = (b"Exif\0\0", b"Photoshop 3.0\0")


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
    file, such as the image itself, and ValueError if the format cannot hold a description.
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
    for damaged in (*_JPEG_METADATA, None):
        try:
            return _add_description(content, caption)
        except RuntimeError as error:  # the only exception of pyexiv2
            if damaged is None:
                raise UserError(
                    "Expected JPEG, PNG, TIFF, WebP or JPEG 2000, which hold a description, got "
                    f"{image_path} ({error}). Save it as one of these first."
                ) from error
            content = _remove_segment(content, damaged)


def _add_description(content: bytes, caption: str) -> bytes:
    with pyexiv2.ImageData(content) as image:
        image.modify_exif({"Exif.Image.ImageDescription": caption})
        descriptions = image.read_xmp().get("Xmp.dc.description", {})  # by language
        others = descriptions if isinstance(descriptions, dict) else {}
        image.modify_xmp({"Xmp.dc.description": others | {'lang="x-default"': caption}})
        return image.get_bytes()


def _remove_segment(content: bytes, beginning: bytes) -> bytes:
    """Removes the first segment with this beginning from a JPEG file; returns other files as they
    are."""
    start = content.find(beginning) - 4  # after a marker and a length, of two bytes each
    if start < 0 or content[:2] != b"\xff\xd8" or content[start] != 0xFF:
        return content
    length = int.from_bytes(content[start + 2 : start + 4], "big")
    return content[:start] + content[start + 2 + length :]
