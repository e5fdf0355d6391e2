"""The options of both commands: how their values are read, and the groups that the steps share.

A wrong value is refused before anything is computed, with what is expected in its place.
"""

import argparse
import math
from dataclasses import fields
from pathlib import Path

from captioning.paths import Paths
from captioning.settings import (
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


def beam_width(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= WIDEST_BEAM:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 1 to {WIDEST_BEAM}, got {text}"
        )
    return int(text)


def share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return number


def page_path(text: str) -> Path:
    return _path_ending_in((".html", ".htm"), text)


def picture_path(text: str) -> Path:
    return _path_ending_in((".png", ".jpg", ".jpeg"), text)


def port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text}")
    return int(text)


def setting(text: str) -> tuple[str, bool | float | str]:
    """ "epochs=20" -> ("epochs", 20), "student=False" -> ("student", False)"""
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


def _path_ending_in(endings: tuple[str, ...], text: str) -> Path:
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
        help="folder of all files that the steps read and write (default: the current folder)",
    )


def add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        type=Path,
        metavar="PATH",
        help="Flickr8k_Dataset.zip and Flickr8k_text.zip if you have them: one, or their folder",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--captions",
        type=Path,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="your captions: a table with a header (image,caption), JSON as of COCO or Karpathy, "
        "or a folder laid out as Flickr8k's (default: Flickr8k)",
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the folder of your images")


def add_encoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoder",
        metavar="NAME",
        help="an image network of keras.applications, such as ResNet50V2 (default: that of "
        f"models/encoder, else {DEFAULT_ENCODER})",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help='"imagenet" or a weights file, to build a new encoder (default: use models/encoder)',
    )
    parser.add_argument(
        "--pooled",
        action="store_true",
        help="extract the pooled features alone (66 MB for Flickr8k instead of 11 GB): enough for "
        "`train --set decoder=merge`",
    )


def add_pretrained_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        metavar="FILE",
        default="imagenet",
        help='"imagenet" or the weights file that models/encoder was made from '
        "(default %(default)s)",
    )


def add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        type=int,
        default=TrainingSettings.seed,
        metavar="N",
        help="runs with different seeds differ by chance only (default %(default)s)",
    )
    parser.add_argument(
        "--set",
        type=setting,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help=f"training settings: {', '.join(_KINDS)} (see captioning/settings.py)",
    )


def add_beam_width(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--beam-width",
        type=beam_width,
        default=SearchSettings.beam_width,
        metavar="N",
        help=f"captions that the search follows at a time, up to {WIDEST_BEAM}; 1 is greedy "
        "search (default %(default)s)",
    )


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    _add_split(parser, default="test")
    add_beam_width(parser)
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")


def add_report(parser: argparse.ArgumentParser) -> None:
    # Who studies the test images and then changes the model has no test any more.
    _add_split(parser, default="development")
    add_beam_width(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"the page (default: {Paths().report.name} in the root folder)",
    )


def add_page(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port",
        type=port,
        default=DEMO_PORT,
        help="the page is at http://127.0.0.1:PORT (default %(default)s)",
    )
    parser.add_argument("--open", action="store_true", help="also open the page in the browser")


def _add_split(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default=default,
        help="the split whose images are captioned (default %(default)s)",
    )
