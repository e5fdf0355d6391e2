"""Writes copies of images with the caption as their description; all else in them stays as it is.

Pillow would recompress a JPEG. pyexiv2 (under the GPL, and needed only for this) replaces metadata
and leaves the pixels and the colour profile alone.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import pyexiv2

from captioning.files import write_atomically

_SILENT = 4  # log level of pyexiv2: odd metadata of some camera is no matter here
# How the EXIF and the IPTC segment of a JPEG begin. If pyexiv2 cannot read them, they give way.
_METADATA_OF_JPEG = (b"Exif\0\0", b"Photoshop 3.0\0")


def copy_paths(image_paths: Iterable[str], folder: Path) -> dict[str, Path]:
    """Image path -> path of its copy, at the place below `folder` that the image has below the
    deepest folder that holds all images. Raises ValueError if none does: Windows has several
    drives."""
    places = {path: Path(os.path.abspath(path)) for path in image_paths}
    if not places:
        return {}
    shared = os.path.commonpath([place.parent for place in places.values()])
    return {path: folder / place.relative_to(shared) for path, place in places.items()}


def write_with_description(image_path: Path, caption: str, copy_path: Path) -> None:
    """Writes a copy with the caption as its description: in EXIF (ImageDescription) and in XMP
    (dc:description), because some programs read one and some the other.

    Overwrites nothing: the same copy may be there already. Raises FileExistsError if another file
    is, such as the image itself, and ValueError if the format has no place for a description.
    """
    content = _describe(image_path, caption)
    if not copy_path.exists():
        with write_atomically(copy_path) as file:
            file.write(content)
    elif copy_path.read_bytes() != content:
        raise FileExistsError(
            f"Expected no file or the same copy of {image_path} at {copy_path}, got another file. "
            "Name another folder for the copies, or move that file away."
        )


def _describe(image_path: Path, caption: str) -> bytes:
    pyexiv2.set_log_level(_SILENT)
    content = image_path.read_bytes()
    for spoilt in (*_METADATA_OF_JPEG, None):
        try:
            return _add_description(content, caption)
        except RuntimeError as error:  # all that pyexiv2 ever raises
            if spoilt is None:
                raise ValueError(
                    "Expected JPEG, PNG, TIFF, WebP or JPEG 2000, which hold a description, got "
                    f"{image_path} ({error}). Save it as one of these first."
                ) from error
            content = _without_segment(content, spoilt)


def _add_description(content: bytes, caption: str) -> bytes:
    with pyexiv2.ImageData(content) as image:
        image.modify_exif({"Exif.Image.ImageDescription": caption})
        descriptions = image.read_xmp().get("Xmp.dc.description", {})  # by language
        others = descriptions if isinstance(descriptions, dict) else {}
        image.modify_xmp({"Xmp.dc.description": others | {'lang="x-default"': caption}})
        return image.get_bytes()


def _without_segment(content: bytes, beginning: bytes) -> bytes:
    """A JPEG file without the first segment that begins so; anything else as it is."""
    start = content.find(beginning) - 4  # behind a marker and a length, of two bytes each
    if start < 0 or content[:2] != b"\xff\xd8" or content[start] != 0xFF:
        return content
    length = int.from_bytes(content[start + 2 : start + 4], "big")
    return content[:start] + content[start + 2 + length :]
