"""The options of both commands: functions that parse their values, and groups that steps share.

A wrong value is an error before anything is computed.
"""

import argparse
import math
from dataclasses import fields
from pathlib import Path

from captioning.paths import Paths
from captioning.settings import (
    CONSENSUS_BEAM_WIDTH,
    DECODINGS,
    DEFAULT_ENCODER,
    DEMO_PORT,
    SPLITS,
    WIDEST_BEAM,
    SearchSettings,
    TrainingSettings,
)

_KINDS = {field.name: field.type for field in fields(TrainingSettings)}
_BOOLEANS = {"True": True, "False": False}
_KIND_NAMES = {int: "a whole number", float: "a number", bool: " or ".join(_BOOLEANS)}


def parse_beam_width(text: str) -> int:
    """Raises ArgumentTypeError unless the text is a whole number from 1 to `WIDEST_BEAM`."""
    return _parse_number(text, "a whole number", WIDEST_BEAM)


def parse_share(text: str) -> float:
    """Raises ArgumentTypeError unless the text is a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return number


def parse_page_path(text: str) -> Path:
    """Raises ArgumentTypeError unless the text ends as the name of an HTML file."""
    return _parse_path(text, (".html", ".htm"))


def parse_figure_path(text: str) -> Path:
    """Raises ArgumentTypeError unless the text ends as the name of a PNG or JPEG file."""
    return _parse_path(text, (".png", ".jpg", ".jpeg"))


def parse_port(text: str) -> int:
    """Raises ArgumentTypeError unless the text is a whole number from 1 to 65535."""
    return _parse_number(text, "a port", 65535)


def parse_setting(text: str) -> tuple[str, bool | float | str]:
    """Returns name and value of a training setting, such as ("epochs", 20) for "epochs=20". Raises
    ArgumentTypeError for an unknown name, or for a value of another type."""
    name, _, value = text.partition("=")
    if name not in _KINDS:
        raise argparse.ArgumentTypeError(
            f"expected NAME=VALUE for one of {', '.join(_KINDS)}, got {text}"
        )
    kind = _KINDS[name]
    try:
        return name, _BOOLEANS[value] if kind is bool else kind(value)
    except (KeyError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"expected {_KIND_NAMES[kind]} for {name}, got {value}"
        ) from error


def _parse_number(text: str, kind: str, most: int) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"expected {kind} from 1 to {most}, got {text}")
    return int(text)


def _parse_path(text: str, endings: tuple[str, ...]) -> Path:
    if not text.lower().endswith(endings):  # --gallery photo.jpg would overwrite the photograph
        raise argparse.ArgumentTypeError(
            f"expected a name that ends in {' or '.join(endings)}, got {text}"
        )
    return Path(text)


def add_root(parser: argparse.ArgumentParser, default: str | None = argparse.SUPPRESS) -> None:
    parser.add_argument(
        "--root",
        type=Path,
        default=default,
        metavar="FOLDER",
        help="the folder of all files that the steps read and write (default: the current folder)",
    )


def add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        type=Path,
        metavar="PATH",
        help="Flickr8k_Dataset.zip, Flickr8k_text.zip, or a folder with one or both, if you have "
        "them (default: download both)",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--captions",
        type=Path,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="your caption files: tables with a header (image,caption), JSON Lines, JSON in the "
        "format of COCO or Karpathy, or a folder laid out like Flickr8k's (default: Flickr8k)",
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the folder of your images")


def add_encoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoder",
        metavar="NAME",
        help="an image network of keras.applications, such as ResNet50V2 (default: that in "
        f"models/encoder, else {DEFAULT_ENCODER})",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help='"imagenet" or a weights file from which to build a new encoder (default: keep '
        "models/encoder)",
    )
    parser.add_argument(
        "--pooled",
        action="store_true",
        help="extract only the pooled features (66 MB for Flickr8k instead of 11 GB), which are "
        "enough for `train --set decoder=merge`",
    )


def add_pretrained_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        metavar="FILE",
        default="imagenet",
        help='"imagenet" or the weights file from which models/encoder was built '
        "(default %(default)s)",
    )


def add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        type=int,
        default=TrainingSettings.seed,
        metavar="N",
        help="the seed of all random numbers (default %(default)s)",
    )
    parser.add_argument(
        "--set",
        type=parse_setting,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help=f"training settings: {', '.join(_KINDS)} (see captioning/settings.py)",
    )


def add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--beam-width",
        type=parse_beam_width,
        metavar="N",
        help=f"the number of captions that beam search keeps, up to {WIDEST_BEAM}; 1 is greedy "
        f"search (default {SearchSettings.beam_width}; {CONSENSUS_BEAM_WIDTH} with consensus)",
    )
    parser.add_argument(
        "--decode",
        choices=DECODINGS,
        default=SearchSettings.decoding,
        help="how to choose the best caption: beam takes the most probable; consensus takes the "
        "one that agrees best with the others, which is better and a quarter slower (default "
        "%(default)s)",
    )


def make_search_settings(options: argparse.Namespace, **others: float) -> SearchSettings:
    """Returns the settings that the options of `add_search` name, and `others` (name -> value)."""
    default = CONSENSUS_BEAM_WIDTH if options.decode == "consensus" else SearchSettings.beam_width
    return SearchSettings(options.beam_width or default, decoding=options.decode, **others)


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    _add_split(parser, default="test")
    add_search(parser)
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")


def add_report(parser: argparse.ArgumentParser) -> None:
    # If you study the test images and then change the model, it is no longer a test.
    _add_split(parser, default="development")
    add_search(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"write the page to this file (default: {Paths().report.name} in the root folder)",
    )


def add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port",
        type=parse_port,
        default=DEMO_PORT,
        help="serve the page at http://127.0.0.1:PORT (default %(default)s)",
    )
    parser.add_argument("--open", action="store_true", help="also open the page in the browser")


def _add_split(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default=default,
        help="the split whose images are captioned (default %(default)s)",
    )
