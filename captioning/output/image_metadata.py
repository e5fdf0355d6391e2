"""Copies of images that carry a caption as their description; all else in them stays as it is."""

import os
from collections.abc import Iterable
from pathlib import Path

# Pillow would compress a JPEG anew to put EXIF data into it, and piexif has rested since 2019.
# Exiv2 exchanges the notes in a file, of any camera, and leaves picture and colour profile alone.
import pyexiv2

from captioning.files import write_atomically

pyexiv2.set_log_level(4)  # silence: what is odd in a camera's notes is no matter here


def copy_paths(image_paths: Iterable[str], folder: Path) -> dict[str, Path]:
    """Image path -> path of its copy: the places of the copies below `folder` are those of the
    images below the deepest folder that holds them all. Raises ValueError where there is none, as
    Windows has several drives."""
    places = {path: Path(os.path.abspath(path)) for path in image_paths}
    if not places:
        return {}
    shared = os.path.commonpath([place.parent for place in places.values()])
    return {path: folder / place.relative_to(shared) for path, place in places.items()}


def write_with_description(image_path: Path, caption: str, copy_path: Path) -> None:
    """Writes the image once more, with the caption as its description: in EXIF (ImageDescription)
    and in XMP (dc:description), as some programs read one and some the other.

    Nothing is overwritten: a file at `copy_path` that is that copy to the byte is left alone.
    Raises FileExistsError if it is another one, the original for instance, and ValueError if the
    format holds no description.
    """
    content = _describe(image_path, caption)
    if not copy_path.exists():
        with write_atomically(copy_path) as file:
            file.write(content)
    elif copy_path.read_bytes() != content:
        raise FileExistsError(
            f"{copy_path} is there, and is another file than the copy of {image_path} with its "
            "caption would be. Name another folder for the copies, or move that file away."
        )


def _describe(image_path: Path, caption: str) -> bytes:
    try:
        with pyexiv2.ImageData(image_path.read_bytes()) as image:
            image.modify_exif({"Exif.Image.ImageDescription": caption})
            image.modify_xmp({"Xmp.dc.description": {'lang="x-default"': caption}})
            return image.get_bytes()
    except RuntimeError as error:  # all that Exiv2 ever raises
        raise ValueError(
            f"{image_path} cannot take a description ({error}). Wanted: JPEG, PNG, TIFF, WebP or "
            "JPEG 2000. Save it as one of these first."
        ) from error
