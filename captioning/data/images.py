"""Photographs as arrays: loads any image as the RGB pixels that the encoder expects.

Training, captioning, the check and the demo page all load images here. Scaling pixels to the
encoder's number range is part of the encoder itself, so that it cannot be forgotten or done twice.
"""

from os import PathLike, fspath
from typing import IO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from captioning.data.bit_depths import scale_to_bytes
from captioning.data.image_files import decode, is_large, open_file, repaired_versions
from captioning.data.image_limits import Refusal
from captioning.errors import UserError, one_line

# A path, the bytes of an image file, a file opened in binary mode, an image of Pillow, or an array:
# (height, width) or (height, width, 1) for grey, (height, width, 3) for RGB, 4 for RGBA.
ImageLike = str | PathLike[str] | bytes | IO[bytes] | Image.Image | np.ndarray

# Left, top, right and bottom, as shares of width and height.
Box = tuple[float, float, float, float]

# A large JPEG file is decoded at a fraction of its size that leaves this many times the requested
# pixels a side. Twenty photographs side by side, 12 megapixels, took a quarter of the time, and no
# pixel of 299x299 changed by more than 5 of 255.
_SPARE = 2

_WHITE = (255, 255, 255)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> the transformation that sets the image upright


class UnreadableImage(UserError):
    """An image that cannot be read. `reason` is a few words that follow its name in the message."""

    def __init__(self, name: str, reason: str, advice: str):
        super().__init__(f"{name} {reason}. {advice}")
        self.reason = reason


def load_image(image: ImageLike, size: tuple[int, int], crop: Box | None = None) -> np.ndarray:
    """Loads an image with `open_image` and resizes it, or its part in the box `crop`, to `size`
    (height, width) whatever its proportions: uint8 RGB (height, width, 3)."""
    height, width = size
    opened = open_image(image, at_least=_SPARE * max(size))
    box = crop and tuple(share * side for share, side in zip(crop, 2 * opened.size, strict=True))
    return np.asarray(opened.resize((width, height), Image.Resampling.BILINEAR, box))


def open_image(image: ImageLike, at_least: int | None = None) -> Image.Image:
    """Opens an image upright, in RGB, at its own size; a JPEG or JPEG 2000 file beyond the pixel
    budget is reduced to fit it. With `at_least`, JPEG and JPEG 2000 files and large images are
    reduced, to at least that many pixels a side, which is faster.

    Grey, palette and CMYK images are converted, 16-bit and float images are scaled to 8 bits (see
    `captioning.data.bit_depths`), transparency becomes white, EXIF rotation is applied, and only
    the first frame of an animation is used. The bytes of a file give the same pixels as its path. A
    file with damaged metadata or a JPEG file without an end marker is read if its pixels are whole.

    Raises FileNotFoundError for a missing file. Raises UnreadableImage, a UserError, for any other
    file that cannot be read: other or damaged files, folders, pipes, and images beyond the limits
    in `captioning.data.image_limits`. Raises UserError for an array of another shape, TypeError
    for an object of another type.
    """
    image, name = _file_or_image(image)
    try:
        return _open(image, at_least)
    except FileNotFoundError:
        problem = FileNotFoundError(f"There is no file {name}. Check the name and the folder.")
    except Refusal as refusal:
        problem = UnreadableImage(name, *refusal.args)
    except MemoryError:
        advice = "Close other programs, or scale it down."
        problem = UnreadableImage(name, "needs more memory than is free", advice)
    except Exception as error:  # Pillow's decoders raise errors of nearly every class
        problem = UnreadableImage(
            name,
            f"cannot be read as an image ({_describe(error)})",
            "Open it in an image viewer; if it is whole there, save it as JPEG or PNG.",
        )
    raise problem  # not from its cause, whose stack frames hold the pixels


def _file_or_image(image: ImageLike) -> tuple[str | PathLike | bytes | Image.Image, str]:
    """Returns the path, the content or the image in memory, and its name in messages."""
    if isinstance(image, (str, PathLike)):
        return image, fspath(image)
    if isinstance(image, Image.Image):
        return image, getattr(image, "filename", "") or "The image"
    name = "The image"
    if hasattr(image, "read"):
        name = str(getattr(image, "name", name))
        try:
            if hasattr(image, "seekable") and image.seekable():
                image.seek(0)
            image = image.read()
        except UserError:  # the object says itself what is wrong
            raise
        except ValueError as error:  # it is closed, or opened as text, which it is not
            raise UnreadableImage(
                name, f"cannot be read ({_describe(error)})", 'Open it in binary mode: "rb".'
            ) from None
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
        raise UserError(
            "Expected an array of numbers (height, width) or (height, width, 1) for grey, (height, "
            "width, 3) for RGB or (height, width, 4) for RGBA, several images as a list, got "
            f"{array.shape} of {array.dtype}."
        )
    is_grey = array.ndim == 3 and array.shape[2] == 1
    return Image.fromarray(scale_to_bytes(array[:, :, 0] if is_grey else array))


def _open(image: str | PathLike | bytes | Image.Image, at_least: int | None) -> Image.Image:
    def convert(image: Image.Image) -> Image.Image:
        return _to_upright_rgb(image, at_least)

    if isinstance(image, Image.Image):  # the caller's, which stays as it is
        rgb = convert(image)
        return image.copy() if rgb is image else rgb
    with open_file(image) as file:
        try:
            return decode(file, at_least, convert)
        except Refusal:
            raise
        except Exception:
            images = [decode(version, at_least, convert) for version in repaired_versions(file)]
            if not images or any(image != images[0] for image in images):
                raise
            return images[0]


def _to_upright_rgb(image: Image.Image, at_least: int | None) -> Image.Image:
    """The decoded image, upright, in RGB: `image` itself if it is so already. A large one is
    reduced to at least `at_least` pixels a side: the next one needs the memory."""
    image.load()  # the orientation of a PNG file may come after its pixels
    turn = _TURNS.get(_orientation(image))
    rgb = _to_rgb(image)
    factor = min(image.size) // at_least if at_least and is_large(image.size) else 1
    if factor > 1:
        rgb = rgb.reduce(factor)
    return rgb if turn is None else rgb.transpose(turn)


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
        values, transparent = np.asarray(image), image.info.get("transparency")
        image = Image.fromarray(scale_to_bytes(values))
        if isinstance(transparent, int):  # of PNG files; other modes leave a colour or bytes
            opacity = (values != transparent).astype("uint8") * np.uint8(255)
            image.putalpha(Image.fromarray(opacity))
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
    on_white = Image.new("RGB", image.size, _WHITE)
    on_white.paste(image, mask=image)
    return on_white


def _describe(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its message names an object in memory
        return "no known format"
    return one_line(error)
