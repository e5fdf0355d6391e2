"""The options of the search for captions, which `caption` shares with the steps of `captioning`.

A wrong value is an error before anything is computed."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable

from captioning.settings import BEAM_SEARCH, USUAL_SEARCHES, WIDEST_BEAM, SearchSettings


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
        help=f"the number of captions that the search keeps, up to {WIDEST_BEAM}; 1 is greedy "
        f"search (default {SearchSettings().beam_width}; {BEAM_SEARCH.beam_width} with --decode "
        "beam)",
    )
    parser.add_argument(
        "--decode",
        choices=USUAL_SEARCHES,
        default=SearchSettings.decoding,
        help="consensus avoids words that people would probably not mention, and takes the caption "
        "that agrees best with the others; beam takes the most probable one (default %(default)s)",
    )


def make_search_settings(
    options: Namespace, length_normalisation: float | None = None
) -> SearchSettings:
    """Returns the search that the options of `add_search` describe."""
    return SearchSettings(options.beam_width, length_normalisation, options.decode)
