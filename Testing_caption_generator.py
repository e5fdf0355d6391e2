"""Captions photographs: `python Testing_caption_generator.py -i image.jpg`."""

import argparse
import math
import sys
import warnings
from pathlib import Path

from captioning.captioner import Captioner
from captioning.settings import Files, SearchSettings

ALL_CAPTIONED, SOME_FAILED, NOTHING_DONE = range(3)


def main(arguments: list[str] | None = None) -> int:
    """Prints one caption an image on stdout, problems on stderr; returns the exit status."""
    warnings.simplefilter("ignore")  # what Pillow finds odd in an image is an error or no matter
    sys.stdout.reconfigure(errors="backslashreplace")  # for file names that no console can print
    options = _parser().parse_args(arguments)
    search = SearchSettings(options.beam_width, options.length_normalisation)
    try:
        captioner = Captioner.load(options.model)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return NOTHING_DONE

    failures = 0
    for path, caption in captioner.caption_files(options.image, search):
        if isinstance(caption, Exception):
            failures += 1
            print(caption, file=sys.stderr)
        else:
            print(caption if len(options.image) == 1 else f"{path}: {caption}", flush=True)
    if failures == len(options.image):
        return NOTHING_DONE
    return SOME_FAILED if failures else ALL_CAPTIONED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Say in a sentence what a photograph shows.",
        epilog="Exit status: 0 every image captioned, 1 some failed, 2 none captioned.",
    )
    parser.add_argument(
        "-i", "--image", nargs="+", type=Path, required=True, help="one or more image files"
    )
    parser.add_argument(
        "--beam-width",
        type=_beam_width,
        default=SearchSettings.beam_width,
        help="how many sentences are followed at a time; 1 is greedy search (default %(default)s)",
    )
    parser.add_argument(
        "--length-normalisation",
        type=_length_normalisation,
        default=SearchSettings.length_normalisation,
        help="0 favours short captions, 1 compares means a word (default %(default)s)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=Files().root,
        metavar="FOLDER",
        help="folder that holds models/ and tokenizer.p (default: the one of this file)",
    )
    return parser


def _beam_width(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:  # wider ones cost much and bring nothing
        raise argparse.ArgumentTypeError(f"wanted a whole number from 1 to 100, received {text}")
    return int(text)


def _length_normalisation(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"wanted a number from 0 to 1, received {text}")
    return share


if __name__ == "__main__":
    sys.exit(main())
