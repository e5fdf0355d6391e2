"""Scales pixel values of any numeric type to the bytes that images are made of."""

import numpy as np

# What cameras and scanners deliver. 12-bit values often lie in 16-bit files.
BIT_DEPTHS = (8, 10, 12, 14, 16)


def scale_to_bytes(values: np.ndarray) -> np.ndarray:
    """`values`, grey or colours of any shape, as uint8 from 0 (black) to 255 (white).

    - uint8 stays as it is; False and True become 0 and 255.
    - Other integers are scaled by the smallest of the bit depths 8, 10, 12, 14 and 16 that holds
      the largest of them: 4095 is white in an image whose largest value is 3000. Negative values
      and values above 65535 are scaled by the image's own range, from its least to its largest.
    - Floats from 0 to 1 are scaled by 255, floats from 0 to 255 only rounded, others scaled by the
      image's own range. NaN becomes black, and infinity counts for nothing in the range.

    Raises ValueError if no value is finite.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype("uint8") * np.uint8(255)
    black, white = _float_range(values) if values.dtype.kind == "f" else _integer_range(values)
    dtype = np.promote_types(values.dtype, "float32") if values.dtype.kind == "f" else "float32"
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values.astype(dtype)
        scaled -= black
        scaled *= 255 / ((white - black) or 1)
    np.nan_to_num(scaled, copy=False, nan=0, posinf=255, neginf=0)
    return scaled.round(out=scaled).clip(0, 255, out=scaled).astype("uint8")


def _integer_range(values: np.ndarray) -> tuple[int, int]:
    low, high = int(values.min()), int(values.max())
    for bits in BIT_DEPTHS:
        if 0 <= low and high < 2**bits:
            return 0, 2**bits - 1
    return low, high


def _float_range(values: np.ndarray) -> tuple[float, float]:
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("Expected finite pixel values, got none")
    low = float(values.min(where=finite, initial=np.inf))
    high = float(values.max(where=finite, initial=-np.inf))
    for white in (1, 255):
        if 0 <= low and high <= white:
            return 0, white
    return low, high
