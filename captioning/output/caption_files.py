"""Writes captions to standard output, or to a file that a later run can resume.

Both classes have the same attributes: `captions`, those of earlier runs (image name -> captions,
best first); `add`, which writes the captions of one more image; and `finish`, which ends the run.
Images are named by their paths, as `captioning.errors.printable` writes them.
"""

import csv
import os
import sys
from collections.abc import Iterable
from functools import partial
from itertools import chain, groupby, takewhile
from operator import itemgetter
from os.path import commonprefix
from pathlib import Path

from captioning.errors import UserError
from captioning.files import name_in_errors, write_atomically
from captioning.inference.decoding import Caption
from captioning.output.caption_formats import CaptionFormat


class CaptionPrinter:
    """Prints captions to standard output as soon as they are added."""

    def __init__(self, caption_format: CaptionFormat, top: int | None, above_bar: bool = False):
        """`top`: the number of ranked captions of each image; None for the best caption alone.
        `above_bar`: the captions are printed above a progress bar of tqdm."""
        self.captions: dict[str, list[Caption]] = {}
        self._format = caption_format
        self._ranked = top is not None
        self._above_bar = above_bar
        self._print(caption_format.header)

    def add(self, image_name: str, captions: list[Caption]) -> None:
        """Prints the captions of an image."""
        self._print(self._format.write(image_name, captions, self._ranked))

    def finish(self) -> None:
        """Does nothing: all captions are printed in order."""

    def _print(self, text: str) -> None:
        if self._above_bar:
            from tqdm import tqdm  # only here: its import takes longer than that of Pillow

            write = partial(tqdm.write, file=sys.stdout, end="")
        else:
            write = sys.stdout.write
        with name_in_errors(Path("standard output")):
            write(text)
            sys.stdout.flush()


class CaptionFile:
    """Appends captions to a file as soon as they are added.

    A run that was killed may leave the captions of its last image incomplete. The next run drops
    them, and captions the image again.
    """

    def __init__(
        self,
        path: Path,
        caption_format: CaptionFormat,
        top: int | None = None,
        image_names: Iterable[str] = (),
    ):
        """Creates the file, or resumes it. `top`: the number of ranked captions of each image; None
        for the best caption alone. `image_names`: the images of this run, in order.

        Raises UserError, and leaves the file as it is, if the file holds anything but captions in
        this format, `top` of each image.
        """
        self.captions: dict[str, list[Caption]] = {}
        self._path = path.resolve()  # of a link, the target is replaced and not the link
        self._format = caption_format
        self._ranked = top is not None
        self._count = top or 1  # captions of each image
        self._image_names = list(dict.fromkeys(image_names))
        self._added: dict[str, None] = {}  # in the order of the file, after those in `captions`
        try:
            end = self._resume()
        except ValueError as error:
            options = f"--format {caption_format.name} {f'--top {top}' if top else 'without --top'}"
            raise UserError(
                f"Expected captions written with {options}, got {path}, which {error}. Repeat the "
                "options that it was written with, or name another file."
            ) from error
        if end:
            os.truncate(self._path, end)
        else:
            with write_atomically(self._path, "w") as file:
                file.write(caption_format.header)

    def add(self, image_name: str, captions: list[Caption]) -> None:
        """Appends the captions of an image, unless the file holds captions of the image."""
        if image_name in self.captions or image_name in self._added:
            return
        self._added[image_name] = None
        with (
            name_in_errors(self._path),
            self._path.open("a", encoding="utf-8", newline="\n") as file,
        ):
            file.write(self._format.write(image_name, captions, self._ranked))

    def finish(self) -> None:
        """Sorts the captions in the order of `image_names`, after those of other images. An image
        that failed in an earlier run was added at the end.

        Raises UserError, and leaves the file as it is, if another program has changed it.
        """
        before = [*self.captions, *self._added]
        written, image_names = set(before), set(self._image_names)
        after = [image_name for image_name in before if image_name not in image_names]
        after += [image_name for image_name in self._image_names if image_name in written]
        if after == before:
            return
        try:
            captions, _ = self._read()
        except ValueError:
            captions = {}
        if list(captions) != before:
            raise UserError(
                f"Expected {self._path} as this run wrote it, got a file that another program has "
                "changed. It stays as it is: check its lines, or delete it and run again."
            )
        with write_atomically(self._path, "w") as file:
            file.write(self._format.header)
            for image_name in after:
                file.write(self._format.write(image_name, captions[image_name], self._ranked))

    def _resume(self) -> int:
        """Reads the captions of earlier runs. Returns the position in bytes at which they end: 0 if
        the file holds nothing, not even a header."""
        if not self._path.exists():
            return 0
        if not self._path.is_file():
            raise ValueError("is not a file")
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
        """Whether the file is empty, or the beginning of a first line that this run may write."""
        with self._path.open("rb") as file:
            line = file.readline()
        if line.endswith(b"\n"):
            return False
        beginnings = map(self._beginning, self._image_names)
        return not line or any(b.startswith(line) or line.startswith(b) for b in beginnings)

    def _beginning(self, image_name: str) -> bytes:
        """The beginning of a file whose first captions are those of this image."""
        captions = ([Caption(word, 0.0)] for word in "ab")  # which have no letter in common
        lines = [self._format.write(image_name, caption, self._ranked) for caption in captions]
        return f"{self._format.header}{commonprefix(lines)}".encode()

    def _read(self) -> tuple[dict[str, list[Caption]], list[int]]:
        """Returns image name -> captions, and the positions in bytes at which the header and the
        captions of each image end. Leaves out a last line that is incomplete. Raises ValueError for
        lines that this class did not write."""
        captions: dict[str, list[Caption]] = {}
        header = self._format.header.encode()
        ends = [len(header)]
        with self._path.open("rb") as file:
            if file.read(len(header)) != header:
                raise ValueError("holds other lines")
            whole_lines = takewhile(lambda line: line.endswith(b"\n"), file)
            for image_name, parsed in groupby(map(self._parse, whole_lines), key=itemgetter(0)):
                _, parts, lines = zip(*parsed, strict=True)
                image_captions = list(chain.from_iterable(parts))
                if len(image_captions) > self._count:
                    raise ValueError("holds more captions of an image")
                content = b"".join(lines)
                expected = self._format.write(image_name, image_captions, self._ranked)
                if image_name in captions or content != expected.encode():
                    raise ValueError("holds other lines")
                captions[image_name] = image_captions
                ends.append(ends[-1] + len(content))
        return captions, ends

    def _parse(self, line: bytes) -> tuple[str, list[Caption], bytes]:
        try:
            return *self._format.read(line.decode("utf-8").removesuffix("\n")), line
        except (ValueError, LookupError, TypeError, RecursionError, csv.Error) as error:
            raise ValueError("holds other lines") from error
