"""The options of the search for captions, which `caption` shares with the steps of `captioning`.

A wrong value is an error before anything is computed."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import replace

from captioning.settings import SEARCHES, WIDEST_BEAM, SearchSettings


def whole_number(most: int = 1_000_000) -> Callable[[str], int]:
    """Returns a parser of whole numbers from 1 to `most`; it raises ArgumentTypeError."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise ArgumentTypeError(f"expected a whole number from 1 to {most}, got {text}")
        return int(text)

    return parse


def add_search(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--beam-width",
        type=whole_number(WIDEST_BEAM),
        metavar="N",
        help=f"the number of captions that beam search keeps, up to {WIDEST_BEAM}; 1 is greedy "
        f"search (default {SEARCHES['consensus'].beam_width}; {SEARCHES['beam'].beam_width} with "
        "--decode beam)",
    )
    parser.add_argument(
        "--decode",
        choices=SEARCHES,
        default=SearchSettings.decoding,
        help="how to choose the best caption: consensus takes the one that agrees best with the "
        "others and has words that people would mention; beam the most probable one, a little "
        "faster (default %(default)s)",
    )


def make_search_settings(
    options: Namespace, length_normalisation: float | None = None
) -> SearchSettings:
    """Returns the settings that the options of `add_search` name, and the usual ones for their
    decoding where an option or `length_normalisation` is None."""
    values = {"beam_width": options.beam_width, "length_normalisation": length_normalisation}
    given = {name: value for name, value in values.items() if value is not None}
    return replace(SEARCHES[options.decode], **given)
