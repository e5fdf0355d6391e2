"""Where the captions of a run go: to standard output, or to a file that a later run goes on with.

Both have `captions`, what earlier runs left there (image -> captions, best first), `add` for more,
of which the names alone are remembered, and `finish` for when all is added.
"""

import csv
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby, islice, takewhile
from operator import eq, itemgetter
from pathlib import Path
from typing import IO

from captioning.files import write_atomically
from captioning.inference import Caption
from captioning.result_formats import Format


class Printout:
    """Captions on standard output, each as soon as it is known."""

    def __init__(self, form: Format, top: int | None, above_bar: bool = False):
        """`above_bar`: whether a progress bar of tqdm is shown meanwhile, which stays below."""
        self.captions: dict[str, list[Caption]] = {}
        self._form = form
        self._listed = top is not None
        self._above_bar = above_bar
        self._print(form.header)

    def add(self, image: str, captions: list[Caption]) -> None:
        self._print(self._form.write(image, captions, self._listed))

    def finish(self, images: Sequence[str]) -> None:
        """All is printed, and in order."""

    def _print(self, text: str) -> None:
        if self._above_bar:
            from tqdm import tqdm  # only now: it takes longer to import than Pillow

            tqdm.write(text, file=sys.stdout, end="")
        else:
            sys.stdout.write(text)
        sys.stdout.flush()


class ResultFile:
    """Captions in a file that grows line by line. What a killed run left unfinished at its end is
    dropped, to be captioned again."""

    def __init__(self, path: Path, form: Format, top: int | None):
        """Raises ValueError for a file that holds anything but what such runs write: captions in
        another format, or another `top`."""
        self._path = path
        self._form = form
        self._listed = top is not None
        try:
            self.captions = self._written_before(top or 1)
        except (ValueError, LookupError, TypeError, csv.Error) as error:
            raise ValueError(
                f"{path} was not written by a run like this one, which cannot go on with it "
                f"({error}). Wanted: --format {form.name} "
                f"{f'with --top {top}' if self._listed else 'without --top'}. Repeat the options "
                "that it was written with, or name another file."
            ) from error
        self._added: dict[str, None] = {}  # in the order of the file, behind the others
        if self.captions:
            os.truncate(path, self.captions.end)
        else:
            with write_atomically(path, "w") as file:
                file.write(form.header)

    def add(self, image: str, captions: list[Caption]) -> None:
        """Does nothing if the file holds captions of the image."""
        if self._holds(image):
            return
        self._added[image] = None
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(self._form.write(image, captions, self._listed))

    def finish(self, images: Sequence[str]) -> None:
        """Brings the captions into the order of `images`: those that an earlier run had failed at
        were added behind its others. Captions of other images stay in front. Raises ValueError if
        another program has written to the file meanwhile."""
        count = len(self.captions) + len(self._added)
        behind = sum(map(self._holds, images))
        end_of_file = islice(chain(self.captions, self._added), max(count - behind, 0), None)
        if all(map(eq, filter(self._holds, images), end_of_file)):
            return
        written = _Written(self._path, self._form, self._listed)
        if len(written) != count or not all(map(self._holds, written)):
            raise ValueError(f"{self._path} was written to meanwhile: it stays as it is.")
        last = dict.fromkeys(filter(self._holds, images))
        with write_atomically(self._path, "w") as file:
            file.write(self._form.header)
            for image in chain((image for image in written if image not in last), last):
                file.write(self._form.write(image, written[image], self._listed))

    def _holds(self, image: str) -> bool:
        return image in self.captions or image in self._added

    def _written_before(self, count: int) -> "_Written":
        written = _Written(self._path, self._form, self._listed)
        if written and written.of_last < count:
            written.forget_last()  # the killed run was at its other lines
        if written and written.most != count:
            raise ValueError(f"it holds {written.most} captions an image")
        return written


class _Written(Mapping):
    """Image -> captions that a file holds, which are read when they are asked for: of very many
    images, memory holds where they begin.

    `end`: where the last ones end, in bytes; `of_last` and `most`: how many the last image has, and
    the one that has most.
    """

    def __init__(self, path: Path, form: Format, listed: bool):
        """Of a file that is missing or empty, nothing. Raises ValueError, LookupError, TypeError or
        csv.Error for one that holds anything else."""
        self._path = path
        self._form = form
        self._places: dict[str, int] = {}
        self.end = self.of_last = self.most = 0
        if path.exists() and not path.is_file():
            raise ValueError("it is no file")
        if not path.exists() or not path.stat().st_size:
            return
        header = form.header.encode()
        with path.open("rb") as file:
            is_other = file.read(len(header)) != header
            self.end = len(header)
            for image, captions, lines in self._read(file):
                is_other |= image in self._places or form.write(image, captions, listed) != lines
                self._places[image] = self.end
                self.end += len(lines.encode())
                self.of_last = len(captions)
                self.most = max(self.most, self.of_last)
        if is_other or not self.end:
            raise ValueError("it holds other lines")

    def __getitem__(self, image: str) -> list[Caption]:
        place = self._places[image]
        with self._path.open("rb") as file:
            file.seek(place)
            return next(self._read(file))[1]

    def __contains__(self, image: object) -> bool:
        return image in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def forget_last(self) -> None:
        """Of the last image."""
        _, self.end = self._places.popitem()

    def _read(self, file: IO[bytes]) -> Iterator[tuple[str, list[Caption], str]]:
        """From here on, image, captions and lines of each; a line without an end is none."""
        whole = takewhile(lambda line: line.endswith(b"\n"), file)
        lines = (line.decode("utf-8") for line in whole)
        found = ((*self._form.read(line.removesuffix("\n")), line) for line in lines)
        for image, of_image in groupby(found, key=itemgetter(0)):
            _, captions, lines_of_image = zip(*of_image, strict=True)
            yield image, [*chain.from_iterable(captions)], "".join(lines_of_image)
