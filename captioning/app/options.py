"""What commands share: text of an option in, the value that it stands for out; an exit status."""

import argparse

from captioning.settings import WIDEST_BEAM

STOPPED = 130  # what shells report of a command that Ctrl-C ended


def read_beam_width(text: str) -> int:
    """A type of `argparse`, so that a wrong width is refused before anything is computed."""
    if not text.isdecimal() or not 1 <= int(text) <= WIDEST_BEAM:
        raise argparse.ArgumentTypeError(
            f"wanted a whole number from 1 to {WIDEST_BEAM}, received {text}"
        )
    return int(text)
