"""Photographs as arrays: loads any image as the RGB pixels that the encoder expects.

Training, captioning, the check and the demo page all load images here. Scaling pixels to the
encoder's number range is part of the encoder itself, so that it cannot be forgotten or done twice.
"""

from functools import cache
from os import PathLike, fspath
from typing import IO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from captioning.data.image_files import Refusal, decode, open_file
from captioning.data.image_repair import repaired_versions
from captioning.data.pixel_range import scale_to_bytes

# A path, the bytes of an image file, a file opened in binary mode, an image of Pillow, or an array:
# (height, width) or (height, width, 1) for grey, (height, width, 3) for RGB, 4 for RGBA.
ImageLike = str | PathLike[str] | bytes | IO[bytes] | Image.Image | np.ndarray

# Left, top, right and bottom, as shares of width and height.
Box = tuple[float, float, float, float]

# A large JPEG file is decoded at a fraction of its size that leaves this many times the requested
# pixels a side. Twenty photographs side by side, 12 megapixels, took a quarter of the time, and no
# pixel of 299x299 changed by more than 5 of 255.
_SPARE = 2

# Images that Pillow does not read, or only with pillow-heif. In a folder they are named as
# unreadable, not left out.
_OTHER_EXTENSIONS = frozenset(
    ".heic .heif .hif .jxl .jxr .svg .exr .hdr .xcf"
    " .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .pef .srw".split()
)

_WHITE = (255, 255, 255)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what sets the image upright


class UnreadableImage(ValueError):
    """An image that cannot be read. `reason` says why in a few words, without its name."""

    def __init__(self, name: str, reason: str, advice: str):
        super().__init__(f"{name} {reason}. {advice}")
        self.reason = reason


def load_image(image: ImageLike, size: tuple[int, int], crop: Box | None = None) -> np.ndarray:
    """The image as `open_image` gives it, or its part in the box `crop`, resized to `size` (height,
    width) whatever its proportions: uint8 RGB (height, width, 3)."""
    height, width = size
    opened = open_image(image, at_least=_SPARE * max(size))
    box = crop and tuple(share * side for share, side in zip(crop, 2 * opened.size, strict=True))
    return np.asarray(opened.resize((width, height), Image.Resampling.BILINEAR, box))


def open_image(image: ImageLike, at_least: int | None = None) -> Image.Image:
    """The image, upright, in RGB, at its own size. With `at_least`, a JPEG file is decoded at a
    fraction of its size that leaves so many pixels a side, which is faster.

    Grey, palette and CMYK images are converted, 16-bit and float images are scaled by their own
    range (see `scale_to_bytes`), transparency becomes white, EXIF rotation is applied, and an
    animation gives its first frame. The bytes of a file give the same pixels as its path. Damaged
    metadata and a missing end marker of a JPEG file do not matter if the pixels are whole.

    Raises FileNotFoundError for a missing file. Raises UnreadableImage, a ValueError, for whatever
    else cannot be read: other or damaged files, folders, pipes, and images beyond the budget of
    `captioning.data.image_files`. Raises ValueError for an array of another shape, and TypeError
    for an object of another type.
    """
    image, name = _file_or_image(image)
    try:
        return _open(image, at_least)
    except FileNotFoundError:
        problem = FileNotFoundError(f"There is no file {name}. Check the name and the folder.")
    except Refusal as refusal:
        problem = UnreadableImage(name, *refusal.args)
    except Exception as error:  # Pillow's decoders raise errors of nearly every class
        problem = UnreadableImage(
            name,
            f"cannot be read as an image ({_one_line(error)})",
            "Open it in an image viewer; if it is whole there, save it as JPEG or PNG.",
        )
    raise problem  # not from its cause, whose stack frames hold the pixels


@cache
def image_extensions() -> frozenset[str]:
    """The endings of the files in a folder that count as images, such as ".jpg": those of Pillow's
    formats that are images by their MIME type, and those of images that Pillow lacks. Pillow opens
    films, PostScript and HDF5 files as well, which a folder holds for other reasons."""
    Image.init()
    return _OTHER_EXTENSIONS.union(
        extension
        for extension, form in Image.registered_extensions().items()
        if form in Image.OPEN and Image.MIME.get(form, "").startswith("image/")
    )


def _file_or_image(image: ImageLike) -> tuple[str | PathLike | bytes | Image.Image, str]:
    """The path, the content or the image in memory, and its name in messages."""
    if isinstance(image, (str, PathLike)):
        return image, fspath(image)
    if isinstance(image, Image.Image):
        return image, getattr(image, "filename", "") or "The image"
    name = "The image"
    if hasattr(image, "read"):
        name = str(getattr(image, "name", name))
        if hasattr(image, "seekable") and image.seekable():
            image.seek(0)
        image = image.read()
    if isinstance(image, (bytes, bytearray)):
        return image, name
    if hasattr(image, "__array__"):
        return _from_array(np.asarray(image)), "The array"
    raise TypeError(
        "Expected the path of an image, its bytes, a file opened in binary mode, an image of "
        f"Pillow or an array, got {type(image).__name__}."
    )


def _from_array(array: np.ndarray) -> Image.Image:
    is_image = array.ndim == 2 or array.ndim == 3 and array.shape[2] in (1, 3, 4)
    if not (is_image and array.size and array.dtype.kind in "biuf"):
        raise ValueError(
            "Expected an array of numbers (height, width) or (height, width, 1) for grey, (height, "
            "width, 3) for RGB or (height, width, 4) for RGBA, several images as a list, got "
            f"{array.shape} of {array.dtype}."
        )
    is_grey = array.ndim == 3 and array.shape[2] == 1
    return Image.fromarray(scale_to_bytes(array[:, :, 0] if is_grey else array))


def _open(image: str | PathLike | bytes | Image.Image, at_least: int | None) -> Image.Image:
    if isinstance(image, Image.Image):  # the caller's, which stays as it is
        rgb = _to_upright_rgb(image)
        return image.copy() if rgb is image else rgb
    with open_file(image) as file:
        try:
            return decode(file, at_least, _to_upright_rgb)
        except Refusal:
            raise
        except Exception:
            versions = [decode(v, at_least, _to_upright_rgb) for v in repaired_versions(file)]
            if not versions or any(version != versions[0] for version in versions):
                raise
            return versions[0]


def _to_upright_rgb(image: Image.Image) -> Image.Image:
    """The decoded image, upright, in RGB: `image` itself if it is so already."""
    image.load()  # the orientation of a PNG file may come after its pixels
    turn = _TURNS.get(_orientation(image))
    upright = image.transpose(turn) if turn is not None else image
    return _to_rgb(upright)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, upright, if it cannot be read. The rest of EXIF is not decoded, so
    that values of a wrong type in it do no harm."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # likewise of nearly every class
        return 1
    return orientation if isinstance(orientation, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # convert() would clip these, not scale
        image = Image.fromarray(scale_to_bytes(np.asarray(image)))
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
    on_white = Image.new("RGB", image.size, _WHITE)
    on_white.paste(image, mask=image)
    return on_white


def _one_line(error: Exception) -> str:
    """The message of an error, or its class, without line breaks."""
    if isinstance(error, UnidentifiedImageError):  # its message names an object in memory
        return "no known format"
    return " ".join(str(error).split()) or type(error).__name__
