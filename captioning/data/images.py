"""Photographs as arrays: any image in, the pixels that the encoder expects out.

The one loader for training and use. Scaling to the encoder's number range is not done here: it is
part of the encoder itself, so that it cannot be forgotten or done twice.
"""

import struct
from contextlib import nullcontext
from functools import cache
from os import PathLike, fspath

import numpy as np
from PIL import Image, ImageOps

# A file, an image of Pillow, or an array: uint8 or floats from 0 to 1, (height, width) for grey,
# (height, width, 3) for RGB.
ImageLike = str | PathLike[str] | Image.Image | np.ndarray

# Left, top, right and bottom, as shares of width and height.
Part = tuple[float, float, float, float]

# How Pillow reports an image that it cannot read, depending on the format and the damage.
DAMAGE = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)

_WHITE = (255, 255, 255, 255)

# Large JPEG files are decoded at a half, a quarter or an eighth of their size, which keeps so many
# times the pixels wanted a side. On 12 megapixels made up of twenty photographs, that took a
# quarter of the time, and changed no pixel of 299x299 by more than 5 of 255.
_SPARE = 2


def load_image(image: ImageLike, size: tuple[int, int], part: Part | None = None) -> np.ndarray:
    """The image as `open_image` gives it, or a part of it, squeezed to `size` (height, width):
    uint8 RGB (height, width, 3)."""
    height, width = size
    opened = open_image(image, at_least=_SPARE * max(size))
    box = part and tuple(share * side for share, side in zip(part, 2 * opened.size, strict=True))
    return np.asarray(opened.resize((width, height), Image.Resampling.BILINEAR, box))


def open_image(image: ImageLike, at_least: int | None = None) -> Image.Image:
    """The image, upright, in RGB, at its own size; a JPEG file, where that is enough for the
    caller, at a fraction of it that has `at_least` so many pixels a side.

    Grey, palette, CMYK and 16-bit images are converted, transparency is laid on white, EXIF
    rotation is applied, and of an animation in a file the first frame is taken. Raises
    FileNotFoundError for a missing file, ValueError for one that is no image, is damaged, or is too
    large to be safe, and for an array that is no image; TypeError for anything else.
    """
    if not isinstance(image, (str, PathLike, Image.Image)):
        image = _from_array(image)
    is_open = isinstance(image, Image.Image)
    name = (getattr(image, "filename", "") or "The image") if is_open else fspath(image)
    try:
        with nullcontext(image) if is_open else Image.open(image) as opened:
            if at_least and not is_open:  # an image of the caller's is left as it is
                opened.draft(None, (at_least, at_least))
            return _to_rgb(_set_upright(opened))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There is no file {name}. Check the name and the folder."
        ) from error
    except IsADirectoryError as error:
        raise ValueError(
            f"{name} is a folder, not an image. Name the image files in it."
        ) from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name} is too large to be safe ({one_line(error)}). Scale it down."
        ) from error
    except DAMAGE as error:
        raise ValueError(
            f"{name} cannot be read as an image ({one_line(error)}). "
            "Open it in an image viewer; if it is whole there, save it as JPEG or PNG."
        ) from error


@cache
def image_extensions() -> frozenset[str]:
    """By which the image files in a folder are known: those of Pillow's formats that are images by
    their MIME type. It opens films, PostScript and HDF5 files as well, which a folder holds for
    other reasons."""
    Image.init()
    return frozenset(
        extension
        for extension, form in Image.registered_extensions().items()
        if form in Image.OPEN and Image.MIME.get(form, "").startswith("image/")
    )


def one_line(error: Exception) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split())


def _from_array(array: np.ndarray) -> Image.Image:
    if not hasattr(array, "__array__"):
        raise TypeError(
            "Wanted: the path of an image, an image of Pillow, or an array. Received: "
            f"{type(array).__name__}."
        )
    array = np.asarray(array)
    is_image = array.ndim == 2 or array.ndim == 3 and array.shape[2] == 3
    is_unit = array.dtype.kind == "f" and array.size and array.min() >= 0 and array.max() <= 1
    if not is_image or array.size == 0 or not (array.dtype == np.uint8 or is_unit):
        is_number = array.dtype.kind in "biuf" and array.size
        values = f", values from {array.min()} to {array.max()}" if is_number else ""
        raise ValueError(
            "The array is no image. Wanted: (height, width, 3) for RGB or (height, width) for "
            "grey, uint8 from 0 to 255 or floats from 0 to 1; several images as a list. "
            f"Received: {array.shape}, {array.dtype}{values}."
        )
    return Image.fromarray((array * 255).round().astype("uint8") if is_unit else array)


def _set_upright(image: Image.Image) -> Image.Image:
    image.load()  # damage to the picture itself is to be reported, not taken for what follows
    try:
        return ImageOps.exif_transpose(image)
    except DAMAGE:  # of the EXIF data alone: the picture is whole, though it may lie on its side
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip, not scale
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype("uint8"))
    elif image.mode == "F":
        image = Image.fromarray((np.asarray(image).clip(0, 1) * 255).round().astype("uint8"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image).convert("RGB")
    return image.convert("RGB")
