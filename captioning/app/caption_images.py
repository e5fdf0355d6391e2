"""The work of the command `caption`: captions many images and writes what was asked for.

Not about the options on the command line: see `captioning.app.caption_command`.
"""

import sys
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
    extras = _Extras(captioner, image_paths, copies, gallery, attention)
    results = _open_results(output, caption_format, top, images, image_paths)
    captioned = 0
    try:
        for path, captions in _captions(captioner, image_paths, results.captions, top or 1, search):
            if isinstance(captions, Exception):
                failures.append(str(captions))
                continue
            captioned += 1
            results.add(image_name(path), captions)
            failures += extras.add(path, captions[0].text)
        results.finish()
        extras.finish()
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


class _Extras:
    """The files beside the captions: copies with descriptions, a gallery, an attention figure.

    Their libraries are optional: each is imported only if it is needed.
    """

    def __init__(
        self,
        captioner: Captioner,
        image_paths: Sequence[str],
        copies: Path | None,
        gallery: Path | None,
        attention: Path | None,
    ):
        """Raises FileExistsError if the gallery or the figure would overwrite a file of another
        kind."""
        self._gallery = gallery
        self._in_gallery: dict[Path, str] = {}
        self._writers: list[Callable[[str, str], None]] = []  # called with image path and caption
        if copies:
            from captioning.output.image_metadata import copy_paths, write_with_description

            paths_of_copies = copy_paths(image_paths, copies)
            self._writers.append(
                lambda path, caption: write_with_description(
                    Path(path), caption, paths_of_copies[path]
                )
            )
        if gallery:
            from captioning.output import pages

            pages.refuse_to_overwrite(gallery)
        if attention:
            from captioning.output import attention_figure

            attention_figure.refuse_to_overwrite(attention)
            self._writers.append(
                lambda path, caption: attention_figure.write_attention_figure(
                    attention, path, captioner.attention(path, caption)
                )
            )

    def add(self, path: str, caption: str) -> Iterator[str]:
        """Writes what belongs to one image; yields a line for each file that cannot be written."""
        for write in self._writers:
            try:
                write(path, caption)
            except (OSError, ValueError) as error:
                yield str(error)
        if self._gallery:
            self._in_gallery[Path(path)] = caption

    def finish(self) -> None:
        """Writes the gallery of all images added."""
        if self._in_gallery:
            from captioning.output.pages import write_gallery

            write_gallery(self._gallery, self._in_gallery)


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


def _open_results(
    output: str | None,
    caption_format: CaptionFormat,
    top: int | None,
    images: Sequence[str],
    image_paths: Sequence[str],
) -> CaptionFile | CaptionPrinter:
    if _is_file(output):
        return CaptionFile(Path(output), caption_format, top, map(image_name, image_paths))
    if caption_format.name != "text":
        print_utf_8()
    elif len(images) == 1 and image_paths == [normalise(images[0])]:
        caption_format = WITHOUT_NAMES  # a single image, named by the user, needs no name
    return CaptionPrinter(caption_format, top, above_bar=_shows_progress(image_paths))


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
