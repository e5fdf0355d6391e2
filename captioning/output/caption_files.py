"""Where the captions of a run go: to standard output, or to a file that a later run goes on with.

Both have `captions`, what earlier runs left there (image -> captions, best first), `add` for more,
of which the names alone are remembered, and `finish` for when all is added.
"""

import csv
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby, islice, takewhile
from operator import eq, itemgetter
from pathlib import Path
from typing import IO

from captioning.files import write_atomically
from captioning.inference.networks import Caption
from captioning.output.caption_formats import Format


class CaptionPrinter:
    """Captions on standard output, as soon as they are known."""

    def __init__(self, form: Format, top: int | None, above_bar: bool = False):
        """`above_bar`: whether a progress bar of tqdm is shown meanwhile, which stays below."""
        self.captions: dict[str, list[Caption]] = {}
        self._form = form
        self._listed = top is not None
        self._above_bar = above_bar
        self._print(form.header)

    def add(self, image: str, captions: list[Caption]) -> None:
        self._print(self._form.write(image, captions, self._listed))

    def finish(self, images: Iterable[str]) -> None:
        """All is printed, and in order."""

    def _print(self, text: str) -> None:
        if self._above_bar:
            from tqdm import tqdm  # only now: it takes longer to import than Pillow

            tqdm.write(text, file=sys.stdout, end="")
        else:
            sys.stdout.write(text)
        sys.stdout.flush()


class CaptionFile:
    """Captions in a file that grows line by line. What a killed run left unfinished at its end is
    dropped, to be captioned again."""

    def __init__(self, path: Path, form: Format, top: int | None):
        """Raises ValueError for a file that holds anything but what such runs write: captions in
        another format, or another `top`."""
        self._path = path.resolve()  # what a link leads to, for it would be replaced itself
        self._form = form
        self._listed = top is not None
        self._count = top or 1
        try:
            self.captions = _CaptionsInFile(self._path, form, self._listed)
            self.captions.require(self._count)
        except ValueError as error:
            raise ValueError(
                f"{path} was not written by a run like this one, which cannot go on with it "
                f"({error}). Wanted: --format {form.name} "
                f"{f'with --top {top}' if self._listed else 'without --top'}. Repeat the options "
                "that it was written with, or name another file."
            ) from error
        self._added: dict[str, None] = {}  # in the order of the file, behind the others
        if self.captions:
            os.truncate(self._path, self.captions.end)
        else:
            with write_atomically(self._path, "w") as file:
                file.write(form.header)

    def add(self, image: str, captions: list[Caption]) -> None:
        """Does nothing if the file holds captions of the image."""
        if self._holds(image):
            return
        self._added[image] = None
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(self._form.write(image, captions, self._listed))

    def finish(self, images: Iterable[str]) -> None:
        """Brings the captions into the order of `images`: those that an earlier run had failed at
        were added behind its others. Captions of other images stay in front. Raises ValueError if
        another program has written to the file meanwhile."""
        last = dict.fromkeys(filter(self._holds, images))
        first = len(self.captions) + len(self._added) - len(last)
        if all(map(eq, last, islice(chain(self.captions, self._added), first, None))):
            return
        now = self._as_left()
        with write_atomically(self._path, "w") as file:
            file.write(self._form.header)
            now.copy(chain((image for image in now if image not in last), last), file)

    def _as_left(self) -> "_CaptionsInFile":
        """The whole file, which should hold what this run knows of."""
        try:
            now = _CaptionsInFile(self._path, self._form, self._listed)
            is_ours = (
                len(now) == len(self.captions) + len(self._added)
                and now.most <= self._count
                and all(map(self._holds, now))
            )
        except ValueError:
            is_ours = False
        if not is_ours:
            raise ValueError(f"{self._path} was written to meanwhile: it stays as it is.")
        return now

    def _holds(self, image: str) -> bool:
        return image in self.captions or image in self._added


class _CaptionsInFile(Mapping[str, list[Caption]]):
    """Image -> captions that a file holds, which are read when they are asked for: of very many
    images, memory holds the names and where their captions begin.

    `end`: where the captions of the last image end, in bytes; `most`: captions of the image that
    has most.
    """

    def __init__(self, path: Path, form: Format, listed: bool):
        """Of a file that is missing or empty, none. Raises ValueError for one that holds anything
        else."""
        self._path = path
        self._form = form
        self._begins: dict[str, int] = {}  # image -> where its captions begin, in bytes
        self.end = self.most = self._of_last = 0
        if not path.exists():
            return
        if not path.is_file():
            raise ValueError("it is no file")
        if not path.stat().st_size:
            return
        header = form.header.encode()
        with path.open("rb") as file:
            if file.read(len(header)) != header:
                raise ValueError("it holds other lines")
            self.end = len(header)
            for image, captions, lines in self._read(file):
                if image in self._begins or form.write(image, captions, listed) != lines:
                    raise ValueError("it holds other lines")
                self._begins[image] = self.end
                self.end += len(lines.encode())
                self._of_last = len(captions)
                self.most = max(self.most, self._of_last)
        if not self.end:  # no header is wanted, and there is no whole line
            raise ValueError("it holds other lines")

    def require(self, count: int) -> None:
        """Forgets the last image if it has fewer captions than `count`, as a run leaves it that is
        killed. Raises ValueError if other images have not as many."""
        if self and self._of_last < count:
            _, self.end = self._begins.popitem()
        if self and self.most != count:
            raise ValueError(f"it holds {self.most} captions an image")

    def copy(self, images: Iterable[str], target: IO[str]) -> None:
        """Writes the lines of these images, in this order."""
        with self._path.open("rb") as file:
            for image in images:
                target.write(self._of(image, file)[1])

    def __getitem__(self, image: str) -> list[Caption]:
        with self._path.open("rb") as file:
            return self._of(image, file)[0]

    def __contains__(self, image: object) -> bool:
        return image in self._begins

    def __iter__(self) -> Iterator[str]:
        return iter(self._begins)

    def __len__(self) -> int:
        return len(self._begins)

    def _of(self, image: str, file: IO[bytes]) -> tuple[list[Caption], str]:
        """Captions and lines of an image. Raises ValueError if they are not where they were."""
        file.seek(self._begins[image])
        try:
            found, captions, lines = next(self._read(file), (None, [], ""))
        except ValueError:  # it begins within a line
            found = None
        if found != image:
            raise ValueError(f"{self._path} was written to meanwhile.")
        return captions, lines

    def _read(self, file: IO[bytes]) -> Iterator[tuple[str, list[Caption], str]]:
        """From here on, image, captions and lines of each; a line without an end is none."""
        whole = takewhile(lambda line: line.endswith(b"\n"), file)
        for image, of_image in groupby(map(self._parse, whole), key=itemgetter(0)):
            _, captions, lines = zip(*of_image, strict=True)
            yield image, [*chain.from_iterable(captions)], "".join(lines)

    def _parse(self, line: bytes) -> tuple[str, list[Caption], str]:
        text = line.decode("utf-8")
        try:
            return *self._form.read(text.removesuffix("\n")), text
        except (LookupError, TypeError, csv.Error) as error:
            raise ValueError(str(error)) from error
