"""The data set: photographs, reference captions as written, and splits; in memory and on disk.

The check writes it and every later step reads it, so that no other step depends on the format of
the captions. How captions are cleaned: see `captioning.data.vocabulary`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioning.data.image_paths import list_images
from captioning.files import read_text, write_atomically
from captioning.settings import SPLITS

Captions = dict[str, list[str]]  # image name -> captions
Splits = dict[str, list[str]]  # "train", "development", "test" -> image names

_ADVICE = "Run the step that writes it: `python -m captioning check`."


@dataclass(frozen=True)
class Dataset:
    """Image names are paths below the folder `images`, with "/" between their parts; `captions` are
    as written."""

    images: Path
    captions: Captions
    splits: Splits

    def __str__(self) -> str:
        """A line for each split: the number of its images and of their captions."""
        return "\n".join(
            f"{split:12} {len(captions):6,} images {sum(map(len, captions.values())):7,} captions"
            for split, captions in (
                (split, select(self.captions, names)) for split, names in self.splits.items()
            )
        )

    def save(self, path: Path) -> None:
        """Writes it as JSON. A folder of images below that of the file is stored relative to it, so
        that both can be moved together."""
        images, here = self.images.resolve(), path.parent.resolve()
        folder = images.relative_to(here) if images.is_relative_to(here) else images
        content = {"images": str(folder), "splits": self.splits, "captions": self.captions}
        with write_atomically(path, "w") as file:
            json.dump(content, file, indent=1)

    @classmethod
    def load(cls, path: Path) -> "Dataset":
        """Reads what `save` wrote. Raises FileNotFoundError if there is no such file, ValueError if
        it holds anything else."""
        text = read_text(path, _ADVICE)
        try:
            content = json.loads(text)
            images, captions, splits = (content[key] for key in ("images", "captions", "splits"))
            if not (_is_lists_of_text(captions) and _is_lists_of_text(splits)):
                raise TypeError("captions and splits are no lists of text")
            if not splits.keys() <= set(SPLITS):
                raise ValueError(f"its splits are {', '.join(splits)}")
            return cls(path.parent / images, captions, splits)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path} is damaged ({error}). Write it again: `python -m captioning check`."
            ) from error


def list_image_names(folder: Path) -> list[str]:
    """The names of all images in `folder` and below it (see `captioning.data.image_paths`), in
    reading order. Raises FileNotFoundError if there is none, OSError if a folder cannot be read."""
    paths, problems = list_images(folder)
    if problems and folder.is_dir():
        raise problems[0]
    if not paths:
        raise FileNotFoundError(
            f"There is no image in {folder}. Name the folder of your photographs, or download "
            "Flickr8k: `python -m captioning download`."
        )
    return [Path(path).relative_to(folder).as_posix() for path in paths]


def write_descriptions(path: Path, captions: Mapping[str, Sequence[str]]) -> None:
    """Writes cleaned captions, one a line: image name, tab, caption. Backslashes and line breaks in
    an image name are escaped."""
    with write_atomically(path, "w") as file:
        for image_name, image_captions in captions.items():
            for caption in image_captions:
                file.write(f"{_escape(image_name)}\t{caption}\n")


def read_descriptions(path: Path) -> Captions:
    """Reads what `write_descriptions` wrote. Raises FileNotFoundError if there is no such file,
    ValueError, naming the line, if it holds anything else."""
    captions: Captions = {}
    lines = read_text(path, _ADVICE).removesuffix("\n").split("\n")
    for number, line in enumerate(lines if lines != [""] else [], start=1):
        image_name, tab, caption = line.rpartition("\t")  # a name may contain tabs
        if not tab:
            raise ValueError(
                f"{path}, line {number}: Expected an image name, a tab and a caption, got "
                f"{line[:80]!r}. Write the file again: `python -m captioning check`."
            )
        captions.setdefault(_unescape(image_name), []).append(caption)
    return captions


def select(by_image: Mapping[str, Any], image_names: Sequence[str]) -> dict[str, Any]:
    """The entries of `by_image` for those `image_names` that it has, in their order."""
    return {name: by_image[name] for name in image_names if name in by_image}


def _is_lists_of_text(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        for texts in value.values()
    )


_ESCAPES = {"\\": r"\\", "\n": r"\n", "\r": r"\r"}
_UNESCAPES = {escape: character for character, escape in _ESCAPES.items()}


def _escape(image_name: str) -> str:
    return re.sub(r"[\\\n\r]", lambda match: _ESCAPES[match[0]], image_name)


def _unescape(image_name: str) -> str:
    return re.sub(r"\\[\\nr]", lambda match: _UNESCAPES[match[0]], image_name)
