"""Where the captions of a run go: to standard output, or to a file that a later run goes on with.

Both have `captions`, what earlier runs left there (image -> captions, best first), `add` for more,
of which the names alone are remembered, and `finish` for when all is added.
"""

import csv
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

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

    def finish(self, images: Iterable[str]) -> None:
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
        self._count = top or 1
        try:
            self.captions = self._read() if path.exists() else {}
        except (ValueError, LookupError, TypeError, csv.Error) as error:
            raise ValueError(
                f"{path} was not written by a run like this one, which cannot go on with it "
                f"({error}). Wanted: --format {form.name} "
                f"{f'with --top {top}' if self._listed else 'without --top'}. Repeat the options "
                "that it was written with, or name another file."
            ) from error
        self._save(self.captions)
        self._images = dict.fromkeys(self.captions)  # in the order of the file

    def add(self, image: str, captions: list[Caption]) -> None:
        """Does nothing if the file holds captions of the image."""
        if image in self._images:
            return
        self._images[image] = None
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(self._form.write(image, captions, self._listed))

    def finish(self, images: Iterable[str]) -> None:
        """Brings the captions into the order of `images`: those that an earlier run had failed at
        were added behind its others. Captions of other images stay in front. Raises ValueError if
        another program has written to the file meanwhile."""
        in_order = {image: None for image in images if image in self._images}
        others = (image for image in self._images if image not in in_order)
        order = [*others, *in_order]
        if order != list(self._images):
            captions = self._parse(self._path.read_bytes().decode("utf-8"))
            if captions.keys() != self._images.keys():
                raise ValueError(f"{self._path} was written to meanwhile: it stays as it is.")
            self._save({image: captions[image] for image in order})

    def _read(self) -> dict[str, list[Caption]]:
        if not self._path.is_file():
            raise ValueError("it is no file")
        content = self._path.read_bytes()
        lines = content[: content.rfind(b"\n") + 1].decode("utf-8")
        captions = self._parse(lines)
        if content and (not lines or self._text(captions) != lines):
            raise ValueError("it holds other lines")
        if captions and len(next(reversed(captions.values()))) < self._count:
            captions.popitem()  # the killed run was at its other lines
        longest = max(map(len, captions.values()), default=self._count)
        if longest != self._count:
            raise ValueError(f"it holds {longest} captions an image")
        return captions

    def _parse(self, lines: str) -> dict[str, list[Caption]]:
        captions: dict[str, list[Caption]] = {}
        for line in lines.removeprefix(self._form.header).split("\n")[:-1]:
            image, found = self._form.read(line)
            captions.setdefault(image, []).extend(found)
        return captions

    def _save(self, captions: Mapping[str, list[Caption]]) -> None:
        with write_atomically(self._path, "w") as file:
            file.write(self._text(captions))

    def _text(self, captions: Mapping[str, list[Caption]]) -> str:
        written = (self._form.write(*each, self._listed) for each in captions.items())
        return self._form.header + "".join(written)
