"""The command `caption`, also `python Testing_caption_generator.py`: captions photographs.

This module only parses the command line, so that `--help` and usage errors need no slow imports.
`captioning.app.caption_images` does the work.
"""

import argparse
from pathlib import Path

from captioning.app.console import run_command
from captioning.app.options import (
    add_search,
    make_search_settings,
    parse_beam_width,
    parse_figure_path,
    parse_page_path,
    parse_share,
)
from captioning.settings import WIDEST_BEAM, SearchSettings

NONE_CAPTIONED = 2  # the exit status, also for a wrong command line
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
        type=parse_beam_width,
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
        type=parse_page_path,
        metavar="FILE.html",
        help="also write a page that shows the images with their captions",
    )
    parser.add_argument(
        "--attention",
        type=parse_figure_path,
        metavar="FILE.png",
        help="also draw the attention of each word of the caption; for a single image",
    )
    parser.add_argument(
        "--min-confidence",
        type=parse_share,
        default=0,
        metavar="P",
        help="leave out captions with a confidence (the probability that a person would not call "
        "them wrong) below P, such as 0.6; list their images, which do not count as failed",
    )
    add_search(parser)
    parser.add_argument(
        "--length-normalisation",
        type=parse_share,
        default=SearchSettings.length_normalisation,
        metavar="A",
        help="0 favours short captions, 1 compares the mean log-probability of the words "
        "(default %(default)s)",
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
