"""Does the work of the command `caption`: captions images, and writes captions, copies and figures.

`captioning.app.caption_command` parses the command line.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from captioning.app.console import FAILED, caption_status, print_error, print_utf_8
from captioning.data.image_paths import find_images, normalise, resolve
from captioning.errors import UserError, printable
from captioning.files import only_writer
from captioning.inference.captioner import Captioner
from captioning.inference.decoding import Caption
from captioning.output.caption_files import CaptionFile, CaptionPrinter
from captioning.output.caption_formats import FORMATS, WITHOUT_NAMES, CaptionFormat, mark_unsure
from captioning.settings import SearchSettings

_STANDARD_OUTPUT = "-"
_ENDINGS = {".txt": "text", ".jsonl": "jsonl", ".csv": "csv", "": "text"}  # of --output -> format


def caption_images(
    images: Sequence[str],
    root: Path | None = None,
    top: int | None = None,
    search: SearchSettings = SearchSettings(),
    format_name: str | None = None,
    output: str | None = None,
    copies_folder: Path | None = None,
    gallery_path: Path | None = None,
    attention_path: Path | None = None,
    min_confidence: float = 0,
    cache: bool = True,
) -> int:
    """Captions the `images` (files, folders, patterns: see `find_images`) with the model in `root`
    (see `captioning.paths.find_model`), with or without the model `cache`. Returns the exit status.

    The captions go to the file `output` or to standard output, in the format `format_name`: the
    best caption of each image or, with `top`, the `top` best. Images already in the file are
    skipped; if it is a text file, which holds no confidences, they are captioned again for copies
    and gallery. If a path is given, the function also writes copies of the images with the captions
    as descriptions, a gallery of all images, or a figure of the attention of each word in an image.
    Images whose best caption has a confidence below `min_confidence` are left out and listed at
    the end. Captions that an earlier run wrote to `output` stay in that file.

    An image that fails stops nothing; its error is printed to stderr at the end. Raises OSError or
    UserError if nothing can be captioned, for example because another run writes the same file.
    """
    written_files = _written_files(output, gallery_path, attention_path)
    caption_format = _choose_format(format_name, output)
    image_paths, problems = find_images(images, skip=copies_folder)
    failures = [str(problem) for problem in problems]
    if attention_path and len(image_paths) > 1:
        raise UserError(
            f"Expected one image to draw with --attention, got {len(image_paths)}. Name one image."
        )
    with _only_writer_of(written_files):
        captioner = Captioner.load(root, cache)
        if min_confidence and captioner.decoder.confidence is None:
            raise UserError(
                "Expected a model with confidences for --min-confidence, got one without. Run "
                "`captioning calibrate`, or leave the option out."
            )
        extras = _Extras(captioner, image_paths, copies_folder, gallery_path, attention_path)
        results = _open_results(output, caption_format, top, images, image_paths)
        earlier = results.captions
        if caption_format.name == "text" and (copies_folder or gallery_path):
            earlier = {}  # they need the confidences, which a text file does not hold
        captioned = 0
        unsure: list[str] = []
        try:
            for path, captions in _stream(captioner, image_paths, earlier, top or 1, search):
                if isinstance(captions, Exception):
                    failures.append(str(captions))
                    continue
                captioned += 1
                confidence = captions[0].confidence
                if confidence is not None and confidence < min_confidence:
                    unsure.append(path)
                    continue
                results.add(printable(path), captions)
                failures += extras.add(path, captions[0])
            results.finish()
            extras.finish()
        except BrokenPipeError:  # the reader closed the pipe early, as `head` does
            return FAILED
        except (OSError, UserError) as error:  # such as a full disk
            failures.append(str(error))
        finally:
            for failure in failures:
                print_error(failure)
            _list_unsure(unsure, min_confidence)
        return caption_status(captioned, len(failures))


def _list_unsure(image_paths: Sequence[str], min_confidence: float) -> None:
    if image_paths:
        images = f"{len(image_paths)} image{'s' if len(image_paths) > 1 else ''}"
        print_error(f"Not sure: {images}, left out for a confidence below {min_confidence:g}:")
    for path in image_paths:
        print_error(f"  {path}")


class _Extras:
    """Writes the files beside the captions: copies with descriptions, a gallery, an attention
    figure. Their libraries are optional, so each is imported only if it is needed."""

    def __init__(
        self,
        captioner: Captioner,
        image_paths: Sequence[str],
        copies_folder: Path | None,
        gallery_path: Path | None,
        attention_path: Path | None,
    ):
        """Raises FileExistsError if the gallery or the figure would overwrite another file."""
        self._gallery_path = gallery_path
        self._captions: dict[Path, str] = {}  # of the gallery: image path -> caption
        self._writers: list[Callable[[str, Caption], None]] = []  # take image path and caption
        if copies_folder:
            from captioning.output.image_metadata import choose_copy_paths, write_with_description

            copies = choose_copy_paths(image_paths, copies_folder)
            self._writers.append(
                lambda path, caption: write_with_description(
                    Path(path), mark_unsure(caption), copies[path]
                )
            )
        if gallery_path:
            from captioning.output import pages

            pages.refuse_to_overwrite(gallery_path)
        if attention_path:
            from captioning.output import attention_figure

            attention_figure.refuse_to_overwrite(attention_path)
            self._writers.append(
                lambda path, caption: attention_figure.write_attention_figure(
                    attention_path, path, captioner.attention(path, caption)
                )
            )

    def add(self, path: str, caption: Caption) -> list[str]:
        """Writes the files of one image. Returns the errors of those that cannot be written."""
        errors = []
        for write in self._writers:
            try:
                write(path, caption)
            except (OSError, UserError) as error:
                errors.append(str(error))
        if self._gallery_path:
            self._captions[Path(path)] = mark_unsure(caption)
        return errors

    def finish(self) -> None:
        """Writes the gallery of all images added."""
        if self._captions:
            from captioning.output.pages import write_gallery

            write_gallery(self._gallery_path, self._captions)


def _is_file(output: str | None) -> bool:
    return output not in (None, _STANDARD_OUTPUT)


def _written_files(
    output: str | None, gallery_path: Path | None, attention_path: Path | None
) -> list[Path]:
    """The files that the command writes as a whole. Raises UserError if two are the same."""
    paths = [path for path in (gallery_path, attention_path) if path]
    paths += [Path(output)] if _is_file(output) else []
    if len({resolve(path) for path in paths}) < len(paths):
        raise UserError(
            "Expected different files for --output, --gallery and --attention, got the same file "
            "twice. Name another file."
        )
    return paths


@contextmanager
def _only_writer_of(paths: Iterable[Path]) -> Iterator[None]:
    with ExitStack() as locks:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            locks.enter_context(only_writer(path))
        yield


def _choose_format(name: str | None, output: str | None) -> CaptionFormat:
    """The format of that name; without a name, that of the ending of the file."""
    if name is None:
        ending = Path(output).suffix.lower() if _is_file(output) else ""
        if ending not in _ENDINGS:
            raise UserError(
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
        return CaptionFile(Path(output), caption_format, top, map(printable, image_paths))
    if caption_format.name != "text":
        print_utf_8()
    elif len(images) == 1 and image_paths == [normalise(images[0])]:
        caption_format = WITHOUT_NAMES  # a single image, named by the user, needs no name
    return CaptionPrinter(caption_format, top, above_bar=_shows_progress(image_paths))


def _stream(
    captioner: Captioner,
    image_paths: Sequence[str],
    earlier: Mapping[str, list[Caption]],
    num_captions: int,
    search: SearchSettings,
) -> Iterator[tuple[str, list[Caption] | Exception]]:
    """Yields each image path, in order, with its captions: those of earlier runs (image name ->
    captions), or new ones. An image that cannot be read comes with its error."""
    new = captioner.stream(
        (path for path in image_paths if printable(path) not in earlier), num_captions, search
    )
    for path in _with_progress(image_paths):
        image_name = printable(path)
        yield path, earlier[image_name] if image_name in earlier else next(new)[1]


def _with_progress(image_paths: Sequence[str]) -> Iterable[str]:
    if not _shows_progress(image_paths):
        return image_paths
    from tqdm import tqdm  # only here: its import takes longer than captioning an image

    return tqdm(image_paths, unit="image")


def _shows_progress(image_paths: Sequence[str]) -> bool:
    return len(image_paths) > 1 and sys.stderr.isatty()
