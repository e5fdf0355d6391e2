"""A data set: photographs, captions as people wrote them, and splits; in memory and on disk.

The check writes it and every later step reads it, so that none of them knows what the captions came
from. Cleaning captions is the business of `captioning.data.vocabulary`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from captioning.data.image_paths import list_images
from captioning.files import read_text, write_atomically

Captions = dict[str, list[str]]  # image name -> captions
Splits = dict[str, list[str]]  # "train", "development", "test" -> image names

_MAKE_IT = "The step before makes it: `python -m captioning check`."


@dataclass(frozen=True)
class Dataset:
    """Image names are paths below the folder `images`, with "/" between their parts; `captions` are
    as written."""

    images: Path
    captions: Captions
    splits: Splits

    def __str__(self) -> str:
        """A line for each split: how many images, and how many captions of them."""
        counts = {split: select(self.captions, names) for split, names in self.splits.items()}
        return "\n".join(
            f"{split:12} {len(of_split):6,} images {sum(map(len, of_split.values())):7,} captions"
            for split, of_split in counts.items()
        )

    def save(self, path: Path) -> None:
        """Writes it as JSON. The folder of the images is named relative to that of the file where
        it lies below it, so that both can be moved together."""
        images, here = self.images.resolve(), path.parent.resolve()
        folder = images.relative_to(here) if images.is_relative_to(here) else images
        content = {"images": str(folder), "splits": self.splits, "captions": self.captions}
        with write_atomically(path, "w") as file:
            json.dump(content, file, indent=1)

    @classmethod
    def load(cls, path: Path) -> "Dataset":
        """Reads what `save` wrote; raises ValueError for anything else."""
        text = read_text(path, _MAKE_IT)
        try:
            content = json.loads(text)
            return cls(path.parent / content["images"], content["captions"], content["splits"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}). Write it anew: `python -m captioning check`."
            ) from error


def list_image_names(folder: Path) -> list[str]:
    """The names of the images that `folder` stands for (see `captioning.data.image_paths`), in reading
    order. Raises FileNotFoundError if there is none, OSError if a folder cannot be read."""
    paths, problems = list_images(folder)
    if problems and folder.is_dir():
        raise problems[0]
    if not paths:
        raise FileNotFoundError(
            f"There is no image in {folder}. Name the folder of your photographs, or fetch those "
            "of Flickr8k: `python -m captioning download`."
        )
    return [Path(path).relative_to(folder).as_posix() for path in paths]


def write_descriptions(path: Path, captions: Mapping[str, Sequence[str]]) -> None:
    """Writes cleaned captions, a line each: image name, tab, caption."""
    with write_atomically(path, "w") as file:
        for image_name, image_captions in captions.items():
            for caption in image_captions:
                file.write(f"{image_name}\t{caption}\n")


def read_descriptions(path: Path) -> Captions:
    """Reads what `write_descriptions` wrote."""
    captions: Captions = {}
    for number, line in enumerate(read_text(path, _MAKE_IT).splitlines(), start=1):
        image_name, tab, caption = line.partition("\t")
        if not tab:
            raise ValueError(
                f"{path}, line {number}: wanted an image name, a tab and a caption. "
                f"Received: {line[:80]!r}. Delete the file and clean the captions again."
            )
        captions.setdefault(image_name, []).append(caption)
    return captions


def select(by_image: Mapping, image_names: Sequence[str]) -> dict:
    """The entries of those images that have one, in the order of `image_names`."""
    return {name: by_image[name] for name in image_names if name in by_image}
