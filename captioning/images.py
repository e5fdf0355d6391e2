"""Photographs as arrays: any image file in, the pixels that the encoder expects out.

The one loader for training and use. Scaling to the encoder's number range is not done here: it is
part of the encoder itself, so that it cannot be forgotten or done twice.
"""

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# How Pillow reports an image that it cannot read, depending on the format and the damage.
DAMAGE = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)

_WHITE = (255, 255, 255, 255)


def load_image(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """The image in `path`, upright, in colour, squeezed to `size` (height, width).

    Returns uint8 RGB (height, width, 3). Grey, palette, CMYK and 16-bit images are converted,
    transparency is laid on white, EXIF rotation is applied, and of an animation the first frame is
    taken. Raises FileNotFoundError for a missing file, ValueError for one that is no image, is
    damaged, or is too large to be safe.
    """
    height, width = size
    path = Path(path)
    try:
        with Image.open(path) as image:
            upright = _to_rgb(_set_upright(image))
            return np.asarray(upright.resize((width, height), Image.Resampling.BILINEAR))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There is no file {path}. Check the name and the folder."
        ) from error
    except IsADirectoryError as error:
        raise ValueError(
            f"{path} is a folder, not an image. Name the image files in it."
        ) from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path} is too large to be safe ({one_line(error)}). Scale it down."
        ) from error
    except DAMAGE as error:
        raise ValueError(
            f"{path} cannot be read as an image ({one_line(error)}). "
            "Open it in an image viewer; if it is whole there, save it as JPEG or PNG."
        ) from error


def one_line(error: Exception) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split())


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
