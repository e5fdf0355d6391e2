"""Captions in JSON, in three layouts:

- COCO's captions (Chen et al., 2015, arXiv:1504.00325), a file for each split: {"images": [{"id",
  "file_name"}], "annotations": [{"image_id", "caption"}]}.
- Karpathy's splits (Karpathy and Fei-Fei, 2015, arXiv:1412.2306), `dataset_flickr8k.json` and the
  like: {"images": [{"filename", "split", "sentences": [{"raw"}]}]}, with "filepath", a folder, for
  COCO's images.
- JSON Lines, an object for each caption: {"image", "caption"}, optionally with "split". The files
  that `caption --output` writes and `metadata.jsonl` of Hugging Face ("file_name", "text") are such
  files.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from captioning.data.caption_tables import (
    SPLIT_COLUMN,
    Row,
    choose_columns,
    has_captions,
    parse_rows,
    require_split,
)
from captioning.errors import UserError


def read_json(text: str, path: Path) -> Iterator[Row]:
    """Yields image name, caption and split (None if it has none) of each caption in `text` from the
    file `path`. Raises UserError, naming the entries or lines, if it has none of the layouts."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if _is_caption(_parse_line(text.lstrip().partition("\n")[0])):
            return _read_lines(text, path)
        raise UserError(
            f"Expected whole JSON in {path}, got a part or other text ({error}). Fetch the file "
            "again, or correct it."
        ) from error
    if _is_caption(content):  # a single caption
        return _read_lines(json.dumps(content), path)
    images = _get(content, "images", list, f"{path}")
    if "annotations" in content:
        return _read_coco(images, _get(content, "annotations", list, f"{path}"), path)
    return parse_rows(_numbered(images, "images", path), _parse_karpathy)


def _read_lines(text: str, path: Path) -> Iterator[Row]:
    lines = [
        (f"{path}, line {number}", line)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    image, caption = choose_columns(_parse_line(lines[0][1]), lines[0][0])

    def parse(located_line: tuple[str, str]) -> list[Row]:
        where, line = located_line
        entry = _parse_line(line)
        image_name, text = _get_name(entry, image, where), _get(entry, caption, str, where)
        split = require_split(str(entry.get(SPLIT_COLUMN) or ""), where)
        return [(image_name, text, split)]

    return parse_rows(lines, parse)


def _parse_line(line: str) -> Any:
    """Returns the value of a line; None if it is not JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_caption(entry: Any) -> bool:
    return isinstance(entry, dict) and has_captions(entry)


def _read_coco(images: list, annotations: list, path: Path) -> Iterator[Row]:
    def parse_image(located_image: tuple[str, Any]) -> list[tuple[str, str]]:
        where, image = located_image
        return [(_get_id(image, "id", where), _get_name(image, "file_name", where))]

    names = dict(parse_rows(_numbered(images, "images", path), parse_image))

    def parse_annotation(located_annotation: tuple[str, Any]) -> list[Row]:
        where, annotation = located_annotation
        image_id = _get_id(annotation, "image_id", where)
        if image_id not in names:
            raise UserError(
                f'{where}: Expected the id of one of the {len(names)} "images", got '
                f"{annotation['image_id']!r}. Add that image, or delete the entry."
            )
        return [(names[image_id], _get(annotation, "caption", str, where), None)]

    return parse_rows(_numbered(annotations, "annotations", path), parse_annotation)


def _parse_karpathy(located_image: tuple[str, Any]) -> list[Row]:
    where, image = located_image
    name = _get_name(image, "filename", where)
    if "filepath" in image:
        name = f"{_get(image, 'filepath', str, where)}/{name}"
    split = require_split(_get(image, "split", str, where), where)
    sentences = _get(image, "sentences", list, where)
    return [(name, _get(sentence, "raw", str, where), split) for sentence in sentences]


def _numbered(entries: list, name: str, path: Path) -> Iterable[tuple[str, Any]]:
    """Each entry with its place in the file."""
    return ((f"{path}, {name}[{number}]", entry) for number, entry in enumerate(entries))


def _get_id(entry: Any, key: str, where: str) -> str:
    """An id, which may be a number in one list and the same number as text in the other."""
    return str(_get(entry, key, int | str, where))


def _get_name(entry: Any, key: str, where: str) -> str:
    """The name of an image."""
    name = _get(entry, key, str, where)
    if not name.strip():
        raise UserError(f'{where}: Expected the name of an image in "{key}", got none. Add it.')
    return name


def _get(entry: Any, key: str, kind: Any, where: str) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get(key), kind):
        raise UserError(
            f'{where}: Expected an entry with "{key}", got {str(entry)[:80]}. Correct the entry, '
            "or name another file."
        )
    return entry[key]
