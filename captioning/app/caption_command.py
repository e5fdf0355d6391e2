"""The command `caption`, also `python Testing_caption_generator.py`: captions photographs.

Only parses the command line, so that `--help` and usage errors are answered at once;
`captioning.app.caption_images` does the work.
"""

import argparse
import warnings
from pathlib import Path

from captioning.app.console import run_command
from captioning.app.options import add_beam_width, beam_width, page_path, picture_path, share
from captioning.settings import WIDEST_BEAM, SearchSettings

NONE_CAPTIONED = 2  # the exit status, also of a wrong command line
FORMAT_NAMES = ("text", "jsonl", "csv")


def main(arguments: list[str] | None = None) -> int:
    """Prints captions to stdout or a file, failures to stderr. Returns the exit status."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    images = options.images + options.more_images
    if not images:
        parser.error("name an image, a folder or a pattern: caption photo.jpg")

    def command() -> int:
        from captioning.app.caption_images import caption_images

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd image fails with an error, or does not matter
            return caption_images(
                images,
                model=options.model,
                top=options.top,
                search=SearchSettings(options.beam_width, options.length_normalisation),
                format_name=options.format,
                output=options.output,
                copies=options.describe,
                gallery=options.gallery,
                attention=options.attention,
            )

    return run_command(command, failed=NONE_CAPTIONED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Describe a photograph in a sentence.",
        epilog="Exit status: 0 every image captioned, 1 some failed, 2 none captioned.",
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
        help="the same",
    )
    parser.add_argument(
        "--format",
        choices=FORMAT_NAMES,
        help="plain text, JSON Lines or CSV (default: by the ending of --output, else text)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write to this file (.txt, .jsonl or .csv) and skip the images already in it; - is "
        "standard output",
    )
    parser.add_argument(
        "--top",
        type=beam_width,
        metavar="N",
        help=f"the N best captions of each image, up to {WIDEST_BEAM}, with their "
        "log-probabilities; widens the beam to N if need be",
    )
    parser.add_argument(
        "--describe",
        type=Path,
        metavar="FOLDER",
        help="also copy the images to this folder, with their captions as descriptions",
    )
    parser.add_argument(
        "--gallery",
        type=page_path,
        metavar="FILE.html",
        help="also write a page that shows the images with their captions",
    )
    parser.add_argument(
        "--attention",
        type=picture_path,
        metavar="FILE.png",
        help="also draw which parts of the image each word of its caption attends to; for one "
        "image",
    )
    add_beam_width(parser)
    parser.add_argument(
        "--length-normalisation",
        type=share,
        default=SearchSettings.length_normalisation,
        metavar="A",
        help="0 favours short captions, 1 compares log-probabilities a word (default %(default)s)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="folder that holds models/ and tokenizer.p (default: the environment variable "
        "CAPTIONING_MODEL, else the model that comes with the program)",
    )
    return parser
