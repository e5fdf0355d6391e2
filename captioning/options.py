"""Text of a command line in, the value that it stands for out, for options that commands share."""

import argparse

from captioning.settings import WIDEST_BEAM


def read_beam_width(text: str) -> int:
    """A type of `argparse`, so that a wrong width is refused before anything is computed."""
    if not text.isdecimal() or not 1 <= int(text) <= WIDEST_BEAM:
        raise argparse.ArgumentTypeError(
            f"wanted a whole number from 1 to {WIDEST_BEAM}, received {text}"
        )
    return int(text)
