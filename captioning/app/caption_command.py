"""Captions photographs: `python Testing_caption_generator.py -i image.jpg`."""

import argparse
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from captioning.app.options import STOPPED, read_beam_width
from captioning.data.image_paths import find_images, place, plain
from captioning.data.names import Names
from captioning.inference.captioner import Captioner
from captioning.inference.networks import Caption
from captioning.output.caption_files import CaptionFile, CaptionPrinter
from captioning.output.caption_formats import BARE, FORMATS, image_name
from captioning.paths import Paths
from captioning.settings import WIDEST_BEAM, SearchSettings

ALL_CAPTIONED, SOME_FAILED, NOTHING_DONE = range(3)


def main(arguments: list[str] | None = None) -> int:
    """Captions go to stdout or a file, progress and then failures to stderr. Returns the exit
    status."""
    warnings.simplefilter("ignore")  # what Pillow finds odd in an image is an error or no matter
    parser = _parser()
    options = parser.parse_args(arguments)
    files = [path for path in (options.output, options.gallery, options.attention) if path]
    if len(set(map(place, files))) < len(files):
        parser.error("--output, --gallery and --attention want a file each")
    image_paths, failures = find_images(options.image, skip=options.describe)
    if options.attention and len(image_paths) > 1:
        parser.error(f"--attention draws one image, received {len(image_paths)}")
    try:
        captioner = Captioner.load(options.model)
        write_copy = _copier(options.describe, image_paths)
        write_attention = _drawer(options.attention, captioner)
        results = _results(options, image_paths)
        if options.gallery:
            from captioning.output.page import refuse_other_page

            refuse_other_page(options.gallery)
    except ImportError as error:
        print(f"{error}. Wanted: pip install -r requirements-caption.txt", file=sys.stderr)
        return NOTHING_DONE
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return NOTHING_DONE

    n_captioned = 0
    for_gallery: dict[Path, str] = {}  # of very many images, only what is wanted is remembered
    try:
        for image_path, captions in _captions(captioner, image_paths, results.captions, options):
            if isinstance(captions, Exception):
                failures.append(captions)
                continue
            n_captioned += 1
            if options.gallery:
                for_gallery[Path(image_path)] = captions[0].text
            results.add(image_name(image_path), captions)
            try:
                write_copy(image_path, captions[0].text)
                write_attention(image_path, captions[0].text)
            except (OSError, ValueError) as error:
                failures.append(error)
        results.finish(map(image_name, image_paths))
        if for_gallery:
            from captioning.output.gallery import write_gallery

            write_gallery(options.gallery, for_gallery)
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED
    except (OSError, ValueError) as error:  # the disk is full, for instance
        failures.append(error)
    finally:
        for failure in failures:
            print(failure, file=sys.stderr)
    if n_captioned == 0:
        return NOTHING_DONE
    return SOME_FAILED if failures else ALL_CAPTIONED


def run() -> int:
    """As `main`, for a console: Ctrl-C ends it with one line."""
    try:
        return main()
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return STOPPED


def _captions(
    captioner: Captioner,
    image_paths: Names,
    known: Mapping[str, list[Caption]],
    options: argparse.Namespace,
) -> Iterator[tuple[str, list[Caption] | Exception]]:
    """For each image, in order, its captions: those that are known by its name, or new ones."""
    new = captioner.alternatives_of_files(
        (path for path in image_paths if image_name(path) not in known),
        options.top or 1,
        SearchSettings(options.beam_width, options.length_normalisation),
    )
    for path in _with_progress(image_paths):
        name = image_name(path)
        yield path, known[name] if name in known else next(new)[1]


def _with_progress(image_paths: Names) -> Iterable[str]:
    """The same, and how far they are on stderr, if that is to be shown."""
    if not _shows_progress(image_paths):
        return image_paths
    from tqdm import tqdm

    return tqdm(image_paths, unit="image")


def _shows_progress(image_paths: Names) -> bool:
    return len(image_paths) > 1 and sys.stderr.isatty()


def _results(options: argparse.Namespace, image_paths: Names) -> CaptionPrinter | CaptionFile:
    suffix = options.output.suffix[1:].lower() if options.output else ""
    if suffix == "json" and not options.format:
        raise ValueError(
            f"{options.output} would hold one value of JSON for each image, in lines. Wanted: a "
            "name that ends in .jsonl, or --format jsonl."
        )
    form = FORMATS[options.format or (suffix if suffix in FORMATS else "text")]
    if options.output:
        return CaptionFile(options.output, form, options.top)
    is_text = form.name == "text"  # what no console can print of a file name is escaped
    sys.stdout.reconfigure(encoding=None if is_text else "utf-8", errors="backslashreplace")
    is_one_file = len(image_paths) == 1 and [*image_paths] == [*map(plain, options.image)]
    form = BARE if is_text and is_one_file else form
    return CaptionPrinter(form, options.top, above_bar=_shows_progress(image_paths))


def _copier(folder: Path | None, image_paths: Names) -> Callable[[str, str], None]:
    """What writes an image and its caption into `folder`; it does nothing where there is none."""
    if folder is None:
        return lambda image_path, caption: None
    from captioning.output.image_metadata import copy_paths, write_with_description

    paths = copy_paths(image_paths, folder)
    return lambda image_path, caption: write_with_description(
        Path(image_path), caption, paths[image_path]
    )


def _drawer(path: Path | None, captioner: Captioner) -> Callable[[str, str], None]:
    """What draws into `path` where the words of an image's caption looked; it does nothing where
    there is none."""
    if path is None:
        return lambda image_path, caption: None
    from captioning.output.attention_figure import refuse_to_overwrite, write_attention_figure

    refuse_to_overwrite(path)
    return lambda image_path, caption: write_attention_figure(
        path, image_path, captioner.gaze(image_path, caption)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Say in a sentence what a photograph shows.",
        epilog="Exit status: 0 every image captioned, 1 some failed, 2 none captioned.",
    )
    parser.add_argument(
        "-i",
        "--image",
        nargs="+",
        action="extend",
        required=True,
        help="files, folders (with all in them) and patterns such as 'photos/**/*.jpg'",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="text, JSON Lines or CSV (default: what the name of --output says, or text)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write to this file; what it holds is not captioned again, whatever the model",
    )
    parser.add_argument(
        "--top",
        type=read_beam_width,
        metavar="N",
        help=f"the N best captions of each image, up to {WIDEST_BEAM}, with their log-"
        "probabilities; the beam is as wide at least",
    )
    parser.add_argument(
        "--describe",
        type=Path,
        metavar="FOLDER",
        help="also copy the images there, with their captions in them as descriptions",
    )
    parser.add_argument(
        "--gallery",
        type=_page,
        metavar="FILE.html",
        help="also write a page that shows the images with their captions",
    )
    parser.add_argument(
        "--attention",
        type=_picture,
        metavar="FILE.png",
        help="also draw what each word of the caption looked at, in one image",
    )
    parser.add_argument(
        "--beam-width",
        type=read_beam_width,
        default=SearchSettings.beam_width,
        help=f"how many sentences are followed at a time, up to {WIDEST_BEAM}; 1 is greedy search "
        "(default %(default)s)",
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
        default=Paths().root,
        metavar="FOLDER",
        help="folder that holds models/ and tokenizer.p (default: the one of this file)",
    )
    return parser


def _page(text: str) -> Path:
    if not text.lower().endswith((".html", ".htm")):  # it would overwrite photo.jpg, too
        raise argparse.ArgumentTypeError(f"wanted a name that ends in .html, received {text}")
    return Path(text)


def _picture(text: str) -> Path:
    if not text.lower().endswith((".png", ".jpg", ".jpeg")):
        raise argparse.ArgumentTypeError(
            f"wanted a name that ends in .png or .jpg, received {text}"
        )
    return Path(text)


def _length_normalisation(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"wanted a number from 0 to 1, received {text}")
    return share
