"""The work of the command `caption`: captions many images and writes what was asked for.

Not about the options on the command line: see `captioning.app.caption_command`.
"""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from captioning.app.console import print_utf_8
from captioning.data.image_paths import find_images, normalise, resolve
from captioning.inference.captioner import Captioner
from captioning.inference.networks import Caption
from captioning.output.caption_files import CaptionFile, CaptionPrinter
from captioning.output.caption_formats import FORMATS, WITHOUT_NAMES, CaptionFormat, image_name
from captioning.settings import SearchSettings

ALL_CAPTIONED, SOME_FAILED, NONE_CAPTIONED = range(3)  # exit statuses

_STANDARD_OUTPUT = "-"
_ENDINGS = {".txt": "text", ".jsonl": "jsonl", ".csv": "csv", "": "text"}  # of --output -> format

WriteExtra = Callable[[str, str], None]  # image path, caption -> a file beside the captions


def caption_images(
    images: Sequence[str],
    model: Path | None = None,
    top: int | None = None,
    search: SearchSettings = SearchSettings(),
    format_name: str | None = None,
    output: str | None = None,
    copies: Path | None = None,
    gallery: Path | None = None,
    attention: Path | None = None,
) -> int:
    """Captions the `images` (files, folders, patterns: see `find_images`); returns the exit status.

    Captions go to the file `output` or to standard output, in the format of that name; with `top`,
    the `top` best ones of each image. Images already in the file are skipped. `copies`: a folder
    for copies of the images with their captions inside; `gallery`: a page that shows all images;
    `attention`: a picture that shows the attention of each word, for one image.

    Failures stop nothing and are printed to stderr at the end. Raises OSError or ValueError if the
    work cannot begin.
    """
    _refuse_same_file(output, gallery, attention)
    caption_format = _choose_format(format_name, output)
    image_paths, problems = find_images(images, skip=copies)
    failures = [str(problem) for problem in problems]
    if attention and len(image_paths) > 1:
        raise ValueError(
            f"Expected one image to draw with --attention, got {len(image_paths)}. Name one image."
        )
    captioner = Captioner.load(model)
    write_extras = list(_extra_writers(copies, attention, captioner, image_paths))
    if gallery:
        from captioning.output.pages import refuse_to_overwrite, write_gallery

        refuse_to_overwrite(gallery)
    if _is_file(output):
        results = CaptionFile(Path(output), caption_format, top, map(image_name, image_paths))
    else:
        named_alone = len(images) == 1 and image_paths == [normalise(images[0])]
        results = _open_printer(caption_format, top, image_paths, named_alone)

    in_gallery: dict[Path, str] = {}
    captioned = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd image fails with an error, or does not matter
            for path, captions in _captions(
                captioner, image_paths, results.captions, top or 1, search
            ):
                if isinstance(captions, Exception):
                    failures.append(str(captions))
                    continue
                captioned += 1
                results.add(image_name(path), captions)
                failures += _failures(write_extras, path, captions[0].text)
                if gallery:
                    in_gallery[Path(path)] = captions[0].text
        results.finish()
        if in_gallery:
            write_gallery(gallery, in_gallery)
    except BrokenPipeError:  # the reader of the pipe has seen enough
        return SOME_FAILED
    except (OSError, ValueError) as error:  # the disk is full, for instance
        failures.append(str(error))
    finally:
        for failure in failures:
            print(failure, file=sys.stderr)
    if not captioned:
        return NONE_CAPTIONED
    return SOME_FAILED if failures else ALL_CAPTIONED


def _is_file(output: str | None) -> bool:
    return output not in (None, _STANDARD_OUTPUT)


def _refuse_same_file(output: str | None, gallery: Path | None, attention: Path | None) -> None:
    paths = [path for path in (gallery, attention) if path]
    paths += [output] if _is_file(output) else []
    if len({resolve(path) for path in paths}) < len(paths):
        raise ValueError(
            "Expected a file each for --output, --gallery and --attention, got one twice. Name "
            "another file."
        )


def _choose_format(name: str | None, output: str | None) -> CaptionFormat:
    """The format of that name, or else the one that the ending of the file stands for."""
    if name is None:
        ending = Path(output).suffix.lower() if _is_file(output) else ""
        if ending not in _ENDINGS:
            raise ValueError(
                f"Expected an --output file that ends in .txt, .jsonl or .csv, got {output}. "
                "Rename it, or choose a --format."
            )
        name = _ENDINGS[ending]
    return FORMATS[name]


def _open_printer(
    caption_format: CaptionFormat, top: int | None, image_paths: Sequence[str], named_alone: bool
) -> CaptionPrinter:
    """Prints to standard output; an image `named_alone` needs no name beside its caption."""
    if caption_format.name != "text":
        print_utf_8()
    elif named_alone:
        caption_format = WITHOUT_NAMES
    return CaptionPrinter(caption_format, top, above_bar=_shows_progress(image_paths))


def _extra_writers(
    copies: Path | None, attention: Path | None, captioner: Captioner, image_paths: Sequence[str]
) -> Iterator[WriteExtra]:
    """Their libraries are optional: each is imported only if it is needed."""
    if copies:
        from captioning.output.image_metadata import copy_paths, write_with_description

        paths_of_copies = copy_paths(image_paths, copies)
        yield lambda path, caption: write_with_description(
            Path(path), caption, paths_of_copies[path]
        )
    if attention:
        from captioning.output.attention_figure import refuse_to_overwrite, write_attention_figure

        refuse_to_overwrite(attention)
        yield lambda path, caption: write_attention_figure(
            attention, path, captioner.attention(path, caption)
        )


def _failures(writers: Iterable[WriteExtra], path: str, caption: str) -> Iterator[str]:
    """Writes all that can be written, and says what cannot."""
    for write in writers:
        try:
            write(path, caption)
        except (OSError, ValueError) as error:
            yield str(error)


def _captions(
    captioner: Captioner,
    image_paths: Sequence[str],
    known: Mapping[str, list[Caption]],
    count: int,
    search: SearchSettings,
) -> Iterator[tuple[str, list[Caption] | Exception]]:
    """For each image, in order, its captions: those that are `known`, or new ones."""
    new = captioner.stream(
        (path for path in image_paths if image_name(path) not in known), count, search
    )
    for path in _with_progress(image_paths):
        name = image_name(path)
        yield path, known[name] if name in known else next(new)[1]


def _with_progress(image_paths: Sequence[str]) -> Iterable[str]:
    if not _shows_progress(image_paths):
        return image_paths
    from tqdm import tqdm  # only here: importing it takes longer than captioning one image does

    return tqdm(image_paths, unit="image")


def _shows_progress(image_paths: Sequence[str]) -> bool:
    return len(image_paths) > 1 and sys.stderr.isatty()
