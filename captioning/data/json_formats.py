"""Reads captions from JSON in one of two layouts: image, caption and split of each caption.

COCO's captions (Chen et al., 2015, arXiv:1504.00325): {"images": [{"id", "file_name"}],
"annotations": [{"image_id", "caption"}]}, a file for each split. Karpathy's splits (Karpathy and
Fei-Fei, 2015, arXiv:1412.2306), `dataset_flickr8k.json` and its kin: {"images": [{"filename",
"split", "sentences": [{"raw"}]}]}, with "filepath", a folder, for COCO's images.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioning.data.splits import parse_split
from captioning.files import read_text
from captioning.settings import SPLITS


def read_json(path: Path) -> Iterator[tuple[str, str, str | None]]:
    """Image name, text and split (None in COCO's layout) of each caption. Raises ValueError, naming
    the entry, if the file has neither layout."""
    try:
        content = json.loads(read_text(path, "Name the file of your captions."))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"Expected whole JSON in {path}, got a part or other text ({error}). Fetch the file "
            "again, or correct it."
        ) from error
    images = _get(content, "images", list, f"{path}")
    if "annotations" in content:
        yield from _coco(images, _get(content, "annotations", list, f"{path}"), path)
    else:
        yield from _karpathy(images, path)


def _coco(images: list, annotations: list, path: Path) -> Iterator[tuple[str, str, None]]:
    names = {}
    for number, image in enumerate(images):
        where = f"{path}, images[{number}]"
        names[_get(image, "id", int | str, where)] = _get(image, "file_name", str, where)
    for number, annotation in enumerate(annotations):
        where = f"{path}, annotations[{number}]"
        image_id = _get(annotation, "image_id", int | str, where)
        if image_id not in names:
            raise ValueError(
                f'{where}: Expected the id of one of the {len(names)} "images", got {image_id!r}. '
                "Add that image, or delete the entry."
            )
        yield names[image_id], _get(annotation, "caption", str, where), None


def _karpathy(images: list, path: Path) -> Iterator[tuple[str, str, str]]:
    for number, image in enumerate(images):
        where = f"{path}, images[{number}]"
        name = _get(image, "filename", str, where)
        if "filepath" in image:
            name = f"{_get(image, 'filepath', str, where)}/{name}"
        word = _get(image, "split", str, where)
        if not parse_split(word):
            raise ValueError(
                f"{where}: Expected a split, one of {', '.join(SPLITS)}, got {word!r}. Correct the "
                "entry."
            )
        for sentence in _get(image, "sentences", list, where):
            yield name, _get(sentence, "raw", str, where), parse_split(word)


def _get(entry: Any, key: str, kind: Any, where: str) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get(key), kind):
        raise ValueError(
            f'{where}: Expected "{key}", as in a caption file of COCO or Karpathy, got '
            f"{str(entry)[:80]}. Correct the entry, or name another file."
        )
    return entry[key]
