"""Reads a caption file in any of the common formats: captions and splits, by image name.

The format is recognised by the content of a file, never by its name:

- Flickr8k's lines: see `captioning.data.flickr8k`.
- A table, whose header names its columns: image, caption and optionally split, in any order and
  beside any others. Kaggle's `captions.txt` of Flickr8k (image,caption) and `results.csv` of
  Flickr30k (image_name| comment_number| comment) are such tables.
- COCO's captions in JSON (Chen et al., 2015, arXiv:1504.00325), a file for each split: {"images":
  [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}.
- Karpathy's splits in JSON (Karpathy and Fei-Fei, 2015, arXiv:1412.2306), `dataset_flickr8k.json`
  and the like: {"images": [{"filename", "split", "sentences": [{"raw"}]}]}, with "filepath", a
  folder, for COCO's images.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from captioning.data.dataset import Captions, Splits, parse_split
from captioning.data.flickr8k import CAPTION_FILE, CAPTION_LINE, read_captions, read_splits
from captioning.errors import UserError
from captioning.files import read_text
from captioning.settings import SPLITS

IMAGE_COLUMNS = ("image", "image_name", "file_name", "filename")
CAPTION_COLUMNS = ("caption", "comment", "text")
SPLIT_COLUMN = "split"
DELIMITERS = (",", ";", "\t", "|")

_BEGINNING = 10_000  # characters, enough for the first line of any such file
_ADVICE = "Name the file of your captions, or run `python -m captioning download` for Flickr8k."


def read_caption_file(path: Path) -> tuple[Captions, Splits]:
    """Returns the captions of a file as written, and the splits that it names. A folder is read as
    Flickr8k's. Raises FileNotFoundError if the file is missing, and ValueError, naming the line or
    the entry, for a file in another format."""
    if path.is_dir():
        path = path / CAPTION_FILE
    beginning = read_text(path, _ADVICE, _BEGINNING)
    first_line = beginning.partition("\n")[0]
    if beginning.lstrip().startswith("{"):
        return _group(read_json(path))
    if CAPTION_LINE.fullmatch(first_line):
        return read_captions(path), read_splits(path.parent)
    if find_delimiter(first_line):
        return _group(read_table(path))
    raise UserError(
        f"{path}, line 1: Expected a header such as image,caption, or lines such as image.jpg#0, a "
        "tab and a caption, or JSON in the layout of COCO's captions or Karpathy's splits, got "
        f"{first_line[:80]!r}. Add the header, or name another file."
    )


def read_table(path: Path) -> Iterator[tuple[str, str, str | None]]:
    """Yields image name, caption and split (None if it has none) of each row. Raises ValueError,
    naming the line, for a row that does not fit the header."""
    text = read_text(path, _ADVICE)
    header, _, _ = text.partition("\n")
    delimiter = find_delimiter(header)
    columns = _columns(header, delimiter)
    image = next(columns.index(name) for name in IMAGE_COLUMNS if name in columns)
    caption = next(columns.index(name) for name in CAPTION_COLUMNS if name in columns)
    split = columns.index(SPLIT_COLUMN) if SPLIT_COLUMN in columns else None
    for line, fields in _rows(text, delimiter, path):
        fields = _correct(fields, columns, caption, delimiter)
        if len(fields) != len(columns) or not fields[image]:
            raise UserError(
                f"{path}, line {line}: Expected {len(columns)} fields, as in the header "
                f"{header!r}, got {delimiter.join(fields)[:80]!r}. Correct the line; put a caption "
                f'that contains "{delimiter}" in quotation marks.'
            )
        word = "" if split is None else fields[split]
        if word and not parse_split(word):
            raise UserError(
                f"{path}, line {line}: Expected a split, one of {', '.join(SPLITS)}, got {word!r}. "
                "Correct the line, or leave the field empty."
            )
        yield fields[image], fields[caption], parse_split(word)


def find_delimiter(header: str) -> str | None:
    """Returns the character between the columns of a table with this header; None if the text is
    not a header."""
    for delimiter in DELIMITERS:
        columns = _columns(header, delimiter)
        if set(columns) & set(IMAGE_COLUMNS) and set(columns) & set(CAPTION_COLUMNS):
            return delimiter
    return None


def read_json(path: Path) -> Iterator[tuple[str, str, str | None]]:
    """Yields image name, text and split (None in COCO's layout) of each caption. Raises ValueError,
    naming the entry, if the file has neither layout."""
    try:
        content = json.loads(read_text(path, _ADVICE))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(
            f"Expected whole JSON in {path}, got a part or other text ({error}). Fetch the file "
            "again, or correct it."
        ) from error
    images = _get(content, "images", list, f"{path}")
    if "annotations" in content:
        yield from _coco(images, _get(content, "annotations", list, f"{path}"), path)
    else:
        yield from _karpathy(images, path)


def _group(entries: Iterable[tuple[str, str, str | None]]) -> tuple[Captions, Splits]:
    """Returns captions and splits by image, from image name, caption and split of each caption."""
    captions: Captions = {}
    splits: dict[str, dict[str, None]] = {}
    for image_name, caption, split in entries:
        captions.setdefault(image_name, []).append(caption)
        if split:
            splits.setdefault(split, {})[image_name] = None
    return captions, {split: list(names) for split, names in splits.items()}


def _columns(header: str, delimiter: str) -> list[str]:
    return [name.strip().strip('"').lower() for name in header.split(delimiter)]


def _rows(text: str, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of the first line and the fields of each row below the header, except empty
    rows."""
    # Flickr30k's captions contain quotation marks that do not enclose a field.
    quoting = csv.QUOTE_NONE if delimiter == "|" else csv.QUOTE_MINIMAL
    rows = csv.reader(io.StringIO(text), delimiter=delimiter, quoting=quoting, strict=True)
    line = 1
    try:
        for fields in rows:
            if line > 1 and any(map(str.strip, fields)):
                yield line, fields
            line = rows.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}, line {line}: Expected matching quotation marks, got an error: {error}. "
            'Correct the line: enclose a caption that begins with one in "...", and double those '
            "inside it."
        ) from error


def _correct(fields: list[str], columns: list[str], caption: int, delimiter: str) -> list[str]:
    """Returns the fields without spaces around them. Joins a caption in the last column that
    contains delimiters without quotation marks, and adds the delimiter that one row of Flickr30k
    lacks."""
    before, rest = fields[:caption], fields[caption:]
    if len(rest) > 1 and caption == len(columns) - 1:
        fields = [*before, delimiter.join(rest)]
    elif not rest and len(before) == caption and columns[caption - 1] == "comment_number":
        joined = re.fullmatch(r"\s*(\d+)\s+(.+)", before[-1])
        fields = [*before[:-1], *joined.groups()] if joined else fields
    return [field.strip() for field in fields]


def _coco(images: list, annotations: list, path: Path) -> Iterator[tuple[str, str, None]]:
    names = {}
    for number, image in enumerate(images):
        where = f"{path}, images[{number}]"
        names[_get(image, "id", int | str, where)] = _get(image, "file_name", str, where)
    for number, annotation in enumerate(annotations):
        where = f"{path}, annotations[{number}]"
        image_id = _get(annotation, "image_id", int | str, where)
        if image_id not in names:
            raise UserError(
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
            raise UserError(
                f"{where}: Expected a split, one of {', '.join(SPLITS)}, got {word!r}. Correct the "
                "entry."
            )
        for sentence in _get(image, "sentences", list, where):
            yield name, _get(sentence, "raw", str, where), parse_split(word)


def _get(entry: Any, key: str, kind: Any, where: str) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get(key), kind):
        raise UserError(
            f'{where}: Expected "{key}", as in a caption file of COCO or Karpathy, got '
            f"{str(entry)[:80]}. Correct the entry, or name another file."
        )
    return entry[key]
