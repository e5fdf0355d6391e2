"""The data set: photographs, reference captions as written, and splits; in memory and on disk.

The check writes it and every later step reads it, so that no other step depends on the format of
the captions. Splits that no caption file names are drawn by the image names alone: the draw can be
repeated anywhere, few images change their split when others are added, and all captions of an image
stay together. For cleaning captions, see `captioning.data.vocabulary`.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioning.errors import UserError
from captioning.files import read_text, write_atomically
from captioning.settings import SPLITS

Captions = dict[str, list[str]]  # image name -> captions
Splits = dict[str, list[str]]  # "train", "development", "test" -> image names

_DRAWN_SHARE = 0.1  # of the training images; Flickr8k's eighth is too much of a small data set
_ADVICE = "Run the step that writes it: `captioning check`."

# The field's names for the splits. Karpathy's "restval" are COCO validation images for training.
_SYNONYMS = {
    "train": ("train", "training", "restval"),
    "development": ("development", "dev", "val", "valid", "validation"),
    "test": ("test", "testing"),
}
_SPLIT_OF_WORD = {word: split for split, words in _SYNONYMS.items() for word in words}

# In the image names of descriptions.txt, which has a line for each caption.
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", "\r": r"\r"})
_UNESCAPED = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}
_ESCAPED = re.compile(r"\\[\\nr]|\\u(d[0-9a-f]{3})")  # also a surrogate, for a byte of a name


@dataclass(frozen=True)
class Dataset:
    """Image names are paths below the folder `images`, with "/" between their parts; `captions` are
    as written."""

    images: Path
    captions: Captions
    splits: Splits

    def __str__(self) -> str:
        """Returns a line for each split: the number of its images and of their captions."""
        return "\n".join(
            f"{split:12} {len(captions):6,} images {sum(map(len, captions.values())):7,} captions"
            for split, captions in ((split, self.captions_of(split)) for split in self.splits)
        )

    def captions_of(self, split: str) -> Captions:
        """Returns the captions of the images of a split, without images that have none."""
        return select(self.captions, self.splits[split])

    def save(self, path: Path) -> None:
        """Writes the data set as JSON. If the folder of images is below the file's folder, its path
        is stored relative to that, so that you can move both together."""
        images, here = self.images.resolve(), path.parent.resolve()
        folder = images.relative_to(here) if images.is_relative_to(here) else images
        content = {"images": folder.as_posix(), "splits": self.splits, "captions": self.captions}
        with write_atomically(path, "w") as file:
            json.dump(content, file, indent=1)

    @classmethod
    def load(cls, path: Path) -> "Dataset":
        """Reads a file written by `save`. Raises FileNotFoundError if it is missing, UserError for
        other content."""
        text = read_text(path, _ADVICE)
        try:
            content = json.loads(text)
            images, captions, splits = (content[key] for key in ("images", "captions", "splits"))
            if not (_has_lists_of_text(captions) and _has_lists_of_text(splits)):
                raise TypeError("captions and splits are not lists of text")
            for split in SPLITS:
                if not any(map(captions.get, splits[split])):
                    raise ValueError(f"it has no captioned image in the {split} split")
            return cls(path.parent / images, captions, {split: splits[split] for split in SPLITS})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"Expected a data set in {path}, got a damaged or another file ({error}). Write it "
                "again: `captioning check`."
            ) from error


def parse_split(word: str) -> str | None:
    """Returns the split that the field calls `word`, in upper or lower case; None for any other
    word."""
    return _SPLIT_OF_WORD.get(word.strip().lower())


def complete_splits(
    named: Mapping[str, Sequence[str]], image_names: Sequence[str], source: str = "the data"
) -> Splits:
    """Returns all three splits: those in `named`, and the missing ones drawn from the training
    images. If no split is named, all `image_names` are training images. Errors name the `source`.

    A drawn split gets about a tenth of the training images: one at least, a third at most. Raises
    UserError if there are too few training images.
    """
    splits = {split: list(names) for split, names in named.items()} or {"train": [*image_names]}
    missing = [split for split in ("test", "development") if split not in splits]
    training_images = len(splits.get("train", ()))
    if training_images <= len(missing):
        raise UserError(
            f"Expected {len(missing) + 1} training images or more in {source}, one to train on and "
            f"one for each split to be drawn ({', '.join(missing) or 'none'}), got "
            f"{training_images}. Add captioned images, or move some to the training split."
        )
    for split in missing:
        drawn = _draw(splits["train"], split)
        splits[split] = [name for name in splits["train"] if name in drawn]
        splits["train"] = [name for name in splits["train"] if name not in drawn]
    return {split: splits[split] for split in SPLITS}


def write_descriptions(path: Path, captions: Mapping[str, Sequence[str]]) -> None:
    """Writes cleaned captions, one a line: image name, tab, caption. In image names, escapes
    backslashes, line breaks and what UTF-8 cannot encode."""
    with write_atomically(path, "w") as file:
        for image_name, image_captions in captions.items():
            escaped_name = image_name.translate(_ESCAPES)
            escaped_name = escaped_name.encode("utf-8", "backslashreplace").decode("utf-8")
            file.writelines(f"{escaped_name}\t{caption}\n" for caption in image_captions)


def read_descriptions(path: Path) -> Captions:
    """Reads a file written by `write_descriptions`. Raises FileNotFoundError if it is missing,
    UserError, naming the line, for other content."""
    captions: Captions = {}
    lines = read_text(path, _ADVICE).removesuffix("\n").split("\n")
    for number, line in enumerate(lines if lines != [""] else [], start=1):
        image_name, tab, caption = line.rpartition("\t")  # a name may contain tabs
        if not tab:
            raise UserError(
                f"{path}, line {number}: Expected an image name, a tab and a caption, got "
                f"{line[:80]!r}. Write the file again: `captioning check`."
            )
        image_name = _ESCAPED.sub(_unescape, image_name)
        captions.setdefault(image_name, []).append(caption)
    return captions


def _unescape(match: re.Match) -> str:
    return chr(int(match[1], 16)) if match[1] else _UNESCAPED[match[0]]


def load_with_descriptions(path: Path, descriptions_path: Path) -> tuple[Dataset, Captions]:
    """Reads a data set and its cleaned captions, which one check has written. Raises
    FileNotFoundError or UserError if one is missing, is damaged or has other images."""
    dataset, descriptions = Dataset.load(path), read_descriptions(descriptions_path)
    if descriptions.keys() != dataset.captions.keys():
        raise UserError(
            f"Expected in {descriptions_path} the {len(dataset.captions):,} images of {path}, got "
            f"{len(descriptions):,} or others. Write both again: `captioning check`."
        )
    return dataset, descriptions


def select(by_image: Mapping[str, Any], image_names: Sequence[str]) -> dict[str, Any]:
    """Returns the entries of `by_image` for those `image_names` that are in it, in their order."""
    return {name: by_image[name] for name in image_names if name in by_image}


def _has_lists_of_text(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        for texts in value.values()
    )


def _draw(image_names: Sequence[str], split: str) -> set[str]:
    numbers = {name: _pseudo_random(name, split) for name in image_names}
    ranked = sorted(numbers, key=numbers.get)
    count = sum(number < _DRAWN_SHARE for number in numbers.values())
    return set(ranked[: max(1, min(count, len(ranked) // 3))])


def _pseudo_random(image_name: str, split: str) -> float:
    """Returns a number from 0 to 1 that is the same on every machine."""
    digest = hashlib.sha256(f"{split} {image_name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64
