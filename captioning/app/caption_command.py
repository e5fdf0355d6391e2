"""The command `caption`, also `python Testing_caption_generator.py`: captions photographs.

This module only parses the command line, so that `--help` and usage errors need no slow imports.
`captioning.app.caption_images` does the work.
"""

import argparse
import math
from pathlib import Path

from captioning.app.console import NONE_CAPTIONED, run_command
from captioning.app.search_options import add_search, make_search_settings, whole_number
from captioning.settings import BEAM_SEARCH, WIDEST_BEAM, SearchSettings

FORMAT_NAMES = ("text", "jsonl", "csv")


def main(arguments: list[str] | None = None) -> int:
    """Writes captions to standard output or a file, and failures to stderr. Returns the exit
    status."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    images = options.images + options.more_images
    if not images:
        parser.error(
            "expected an image, a folder or a pattern, got none. Name one: caption photo.jpg"
        )

    def command() -> int:
        from captioning.app.caption_images import caption_images

        return caption_images(
            images,
            root=options.model,
            top=options.top,
            search=make_search_settings(options, length_normalisation=options.length_normalisation),
            format_name=options.format,
            output=options.output,
            copies_folder=options.describe,
            gallery_path=options.gallery,
            attention_path=options.attention,
            min_confidence=options.min_confidence,
            cache=not options.no_cache,
        )

    return run_command(command, failed=NONE_CAPTIONED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Describe each photograph in a sentence.",
        epilog="The exit status is 0 if every image was captioned, 1 if some failed, 2 if none was "
        "captioned.",
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="files, folders (recursively) and patterns such as 'photos/**/*.jpg'",
    )
    parser.add_argument(
        "-i",
        "--image",
        dest="more_images",
        nargs="+",
        action="extend",
        default=[],
        metavar="IMAGE",
        help="another way to name images",
    )
    parser.add_argument(
        "--format",
        choices=FORMAT_NAMES,
        help="plain text, JSON Lines or CSV (default: that of the ending of --output, else text)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the captions to this file (.txt, .jsonl or .csv) and skip images already in "
        "it; - stands for standard output",
    )
    parser.add_argument(
        "--top",
        type=whole_number(WIDEST_BEAM),
        metavar="N",
        help=f"write the N best captions of each image, up to {WIDEST_BEAM}, with their "
        "log-probabilities; a narrower beam is widened to N",
    )
    parser.add_argument(
        "--describe",
        type=Path,
        metavar="FOLDER",
        help="also copy the images to this folder, with the captions in their metadata",
    )
    parser.add_argument(
        "--gallery",
        type=_parse_page_path,
        metavar="FILE.html",
        help="also write a page that shows the images with their captions",
    )
    parser.add_argument(
        "--attention",
        type=_parse_figure_path,
        metavar="FILE.png",
        help="also draw the attention of each word of the caption; for a single image",
    )
    parser.add_argument(
        "--min-confidence",
        type=_parse_share,
        default=0,
        metavar="P",
        help="leave out captions with a confidence (the probability that a person would not call "
        "them wrong) below P, such as 0.6; list their images, which do not count as failed",
    )
    add_search(parser)
    parser.add_argument(
        "--length-normalisation",
        type=_parse_share,
        metavar="A",
        help="0 favours short captions, 1 compares the mean log-probability of the words (default "
        f"{SearchSettings().length_normalisation}; {BEAM_SEARCH.length_normalisation} with "
        "--decode beam)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="the folder that holds models/ and tokenizer.p (default: that of the environment "
        "variable CAPTIONING_MODEL, else the model that comes with the program)",
    )
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="compile the networks again, and do not store them for a faster start next time",
    )
    return parser


def _parse_share(text: str) -> float:
    """Raises ArgumentTypeError unless the text is a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return number


def _parse_page_path(text: str) -> Path:
    """Raises ArgumentTypeError unless the text ends as the name of an HTML file."""
    return _parse_path(text, (".html", ".htm"))


def _parse_figure_path(text: str) -> Path:
    """Raises ArgumentTypeError unless the text ends as the name of a PNG or JPEG file."""
    return _parse_path(text, (".png", ".jpg", ".jpeg"))


def _parse_path(text: str, endings: tuple[str, ...]) -> Path:
    if not text.lower().endswith(endings):  # --gallery photo.jpg would overwrite the photograph
        raise argparse.ArgumentTypeError(
            f"expected a name that ends in {' or '.join(endings)}, got {text}"
        )
    return Path(text)
