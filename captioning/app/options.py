"""The options of the steps of `captioning`, in groups.

A wrong value is an error before anything is computed."""

from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from dataclasses import fields
from pathlib import Path

from captioning.app.search_options import add_search, whole_number
from captioning.paths import Paths
from captioning.settings import DEFAULT_ENCODER, DEMO_PORT, SPLITS, TrainingSettings

_KINDS = {field.name: field.type for field in fields(TrainingSettings)}
_BOOLEANS = {"True": True, "False": False}
_KIND_NAMES = {int: "a whole number", float: "a number", bool: " or ".join(_BOOLEANS)}


def parse_setting(text: str) -> tuple[str, bool | float | str]:
    """Returns name and value of a training setting, such as ("epochs", 20) for "epochs=20". Raises
    ArgumentTypeError for an unknown name, or for a value of another type."""
    name, _, value = text.partition("=")
    if name not in _KINDS:
        raise ArgumentTypeError(f"expected NAME=VALUE for one of {', '.join(_KINDS)}, got {text}")
    kind = _KINDS[name]
    try:
        return name, _BOOLEANS[value] if kind is bool else kind(value)
    except (KeyError, ValueError) as error:
        raise ArgumentTypeError(f"expected {_KIND_NAMES[kind]} for {name}, got {value}") from error


def add_root(parser: ArgumentParser, default: str | None = SUPPRESS) -> None:
    parser.add_argument(
        "--root",
        type=Path,
        default=default,
        metavar="FOLDER",
        help="the folder of all files that the steps read and write (default: the current folder; "
        "at-scale uses the shipped model instead, and so does serve if that folder holds none)",
    )


def add_source(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        type=Path,
        metavar="PATH",
        help="Flickr8k_Dataset.zip, Flickr8k_text.zip, or a folder with one or both, if you have "
        "them (default: download both)",
    )


def add_data(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--captions",
        type=Path,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="your caption files: tables with the columns image and caption (CSV, JSON Lines, "
        "Parquet), JSON of COCO or Karpathy, or a folder like Flickr8k's (default: Flickr8k)",
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the folder of your images")


def add_encoder(parser: ArgumentParser) -> None:
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
        'models/encoder, or copy the shipped encoder; "imagenet" for any other --encoder)',
    )
    parser.add_argument(
        "--pooled",
        action="store_true",
        help="extract only the pooled features (66 MB for Flickr8k instead of 11 GB), which are "
        "enough for `train --set decoder=merge`",
    )


def add_pretrained_weights(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        metavar="FILE",
        default="imagenet",
        help='the weights of the encoder before fine-tuning: "imagenet" or a weights file (default '
        "%(default)s)",
    )


def add_training(parser: ArgumentParser) -> None:
    add_settings(parser)
    parser.add_argument(
        "--devices", type=whole_number(), metavar="N", help="graphics cards to use (default: all)"
    )
    parser.add_argument(
        "--on-the-fly",
        action="store_true",
        help="extract the features of the training images in every epoch, each from one of 22 "
        "versions (the image, its mirror image, ten random crops of each), instead of storing "
        "feature maps: slower, but it takes hardly any disk",
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="FOLDER",
        help="continue the training of the caption model in this folder, with rewards only; "
        "`fine-tune` leaves one in models/fine_tuning below its root (default: train from scratch)",
    )


def add_settings(parser: ArgumentParser) -> None:
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


def add_evaluation(parser: ArgumentParser) -> None:
    _add_split(parser, default="test")
    add_search(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the scores as JSON, without the factor of 100"
    )


def add_report(parser: ArgumentParser) -> None:
    # If you study the test images and then change the model, it is no longer a test.
    _add_split(parser, default="development")
    add_search(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"write the page to this file (default: {Paths().report.name} in the root folder)",
    )


def add_demo(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--port",
        type=whole_number(65535),
        default=DEMO_PORT,
        help="serve the page at http://127.0.0.1:PORT (default %(default)s)",
    )
    parser.add_argument("--open", action="store_true", help="also open the page in the browser")


def add_manifest(parser: ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="FOLDER",
        help="files, folders (recursively), patterns, and URIs such as s3://bucket/photos",
    )
    parser.add_argument("manifest", metavar="MANIFEST", help="the Parquet file or URI to write")
    parser.add_argument(
        "--contents",
        action="store_true",
        help="also copy the images into the manifest, to save requests to object storage",
    )


def add_at_scale(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--manifest",
        required=True,
        help="the images: a Parquet file, a folder of them, or a URI, with the columns id and path "
        "or bytes, such as `captioning manifest` writes",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FOLDER",
        help="write the captions to this folder or URI, and skip images that have captions there",
    )
    parser.add_argument(
        "--workers",
        type=whole_number(),
        metavar="N",
        help="processes that caption, each with a model of its own (default: as many as fit)",
    )
    parser.add_argument(
        "--threads",
        type=whole_number(),
        default=1,
        metavar="K",
        help="threads of each worker (default %(default)s, which captions the most images)",
    )
    parser.add_argument(
        "--address",
        help='the address of a Ray cluster, HOST:PORT, or "auto" for that of this machine '
        "(default: start Ray on this machine only)",
    )
    parser.add_argument(
        "--retry-errors",
        action="store_true",
        help="caption images that failed in earlier runs again (default: skip them)",
    )


def _add_split(parser: ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default=default,
        help="the split whose images are captioned (default %(default)s)",
    )
