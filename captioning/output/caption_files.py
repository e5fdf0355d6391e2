"""Writes captions to standard output, or to a file that a later run can resume.

Both classes have `captions`, the captions that an earlier run left there (image -> captions, best
first), `add` for the captions of one more image and `finish` for the end of the run. Images go by
the names that `captioning.output.caption_formats.image_name` gives them.
"""

import csv
import os
import sys
from collections.abc import Iterable
from itertools import chain, groupby, takewhile
from operator import itemgetter
from os.path import commonprefix
from pathlib import Path

from captioning.files import write_atomically
from captioning.inference.networks import Caption
from captioning.output.caption_formats import CaptionFormat


class CaptionPrinter:
    """Captions on standard output, each as soon as it is added."""

    def __init__(self, caption_format: CaptionFormat, top: int | None, above_bar: bool = False):
        """`above_bar`: a progress bar of tqdm stays below what is printed."""
        self.captions: dict[str, list[Caption]] = {}
        self._format = caption_format
        self._ranked = top is not None
        self._above_bar = above_bar
        self._print(caption_format.header)

    def add(self, image: str, captions: list[Caption]) -> None:
        self._print(self._format.write(image, captions, self._ranked))

    def finish(self) -> None:
        """Does nothing: all captions are printed, and in order."""

    def _print(self, text: str) -> None:
        if self._above_bar:
            from tqdm import tqdm  # only here: it takes longer to import than Pillow

            tqdm.write(text, file=sys.stdout, end="")
        else:
            sys.stdout.write(text)
        sys.stdout.flush()


class CaptionFile:
    """Captions in a file that grows by whole lines, each as soon as it is added.

    A run that was killed may leave the captions of its last image incomplete: they are dropped, and
    the image counts as not captioned.
    """

    def __init__(
        self,
        path: Path,
        caption_format: CaptionFormat,
        top: int | None = None,
        images: Iterable[str] = (),
    ):
        """Opens or resumes the file, for captions of `images`, in this order.

        Raises ValueError if the file holds anything but captions in this format, `top` of each
        image; such a file stays as it is.
        """
        self.captions: dict[str, list[Caption]] = {}
        self._path = path.resolve()  # replacing a link itself would leave its target as it was
        self._format = caption_format
        self._ranked = top is not None
        self._count = top or 1  # captions of each image
        self._images = list(dict.fromkeys(images))
        self._added: dict[str, None] = {}  # in the order of the file, behind those in `captions`
        try:
            end = self._resume()
        except ValueError as error:
            options = f"--format {caption_format.name} {f'--top {top}' if top else 'without --top'}"
            raise ValueError(
                f"Expected captions written with {options}, got {path}, which {error}. Repeat the "
                "options that it was written with, or name another file."
            ) from error
        if end:
            os.truncate(self._path, end)
        else:
            with write_atomically(self._path, "w") as file:
                file.write(caption_format.header)

    def add(self, image: str, captions: list[Caption]) -> None:
        """Does nothing if the file holds captions of the image."""
        if image in self.captions or image in self._added:
            return
        self._added[image] = None
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(self._format.write(image, captions, self._ranked))

    def finish(self) -> None:
        """Brings the captions into the order of `images`, behind those of other images: an image
        that failed in an earlier run was added at the end.

        Raises ValueError, and leaves the file as it is, if another program has changed it.
        """
        before = [*self.captions, *self._added]
        ours = [image for image in self._images if image in self.captions or image in self._added]
        last = set(ours)
        after = [*(image for image in before if image not in last), *ours]
        if after == before:
            return
        try:
            captions, _ = self._read()
        except ValueError:
            captions = {}
        if list(captions) != before:
            raise ValueError(f"{self._path} changed during the run. It stays as it is.")
        with write_atomically(self._path, "w") as file:
            file.write(self._format.header)
            for image in after:
                file.write(self._format.write(image, captions[image], self._ranked))

    def _resume(self) -> int:
        """Reads the captions of an earlier run, and returns where they end in the file, in bytes: 0
        if there are none, not even a header."""
        if not self._path.exists():
            return 0
        if not self._path.is_file():
            raise ValueError("is no file")
        if self._is_cut_in_first_line():
            return 0
        self.captions, ends = self._read()
        if ends[-1] == 0:
            raise ValueError("holds other lines")
        if self.captions and len(next(reversed(self.captions.values()))) < self._count:
            self.captions.popitem()
            ends.pop()
        if self.captions and max(map(len, self.captions.values())) < self._count:
            raise ValueError("holds fewer captions of each image")
        return ends[-1]

    def _is_cut_in_first_line(self) -> bool:
        """Whether the file is empty, or ends within a first line that this run would write."""
        with self._path.open("rb") as file:
            line = file.readline()
        if line.endswith(b"\n"):
            return False
        starts = map(self._start, self._images)
        return not line or any(s.startswith(line) or line.startswith(s) for s in starts)

    def _start(self, image: str) -> bytes:
        """What the file begins with if its first captions are those of `image`."""
        lines = (self._format.write(image, [Caption(word, 0.0)], self._ranked) for word in "ab")
        return f"{self._format.header}{commonprefix(list(lines))}".encode()

    def _read(self) -> tuple[dict[str, list[Caption]], list[int]]:
        """Image -> captions; and the end of the header and of the captions of each image, in bytes.
        Leaves out a line without an end. Raises ValueError for lines of another kind."""
        captions: dict[str, list[Caption]] = {}
        header = self._format.header.encode()
        ends = [len(header)]
        with self._path.open("rb") as file:
            if file.read(len(header)) != header:
                raise ValueError("holds other lines")
            whole_lines = takewhile(lambda line: line.endswith(b"\n"), file)
            for image, parsed in groupby(map(self._parse, whole_lines), key=itemgetter(0)):
                _, parts, lines = zip(*parsed, strict=True)
                captions_of_image = list(chain.from_iterable(parts))
                if len(captions_of_image) > self._count:
                    raise ValueError("holds more captions of an image")
                content = b"".join(lines)
                expected = self._format.write(image, captions_of_image, self._ranked)
                if image in captions or content != expected.encode():
                    raise ValueError("holds other lines")
                captions[image] = captions_of_image
                ends.append(ends[-1] + len(content))
        return captions, ends

    def _parse(self, line: bytes) -> tuple[str, list[Caption], bytes]:
        try:
            return *self._format.read(line.decode("utf-8").removesuffix("\n")), line
        except (ValueError, LookupError, TypeError, csv.Error) as error:
            raise ValueError("holds other lines") from error
