"""Memory that was freed is kept for the next step of training, instead of going back to the system.

TensorFlow, when `fit` draws batches from Python, tells the C library to give back whatever is freed
beyond 128 kB (`M_TRIM_THRESHOLD`). The arrays of a step are larger: each step then begs for the
same memory again, page by page, which took a third of its time.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h of glibc names them
_KEPT = 2**30  # bytes
_LARGEST_KEPT = 2**25  # bytes of an array: glibc allows no more


def keep_freed_memory() -> None:
    """Tells the C library of Linux; does nothing with any other."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
