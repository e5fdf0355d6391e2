"""Reads captions from a table: image, caption and split of each row.

The header of a table names its columns, in any order and beside any others: the image, the caption
and optionally the split. Kaggle's `captions.txt` of Flickr8k (image,caption) and `results.csv` of
Flickr30k (image_name| comment_number| comment) are such tables.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from captioning.data.splits import parse_split
from captioning.files import read_text
from captioning.settings import SPLITS

IMAGE_COLUMNS = ("image", "image_name", "file_name", "filename")
CAPTION_COLUMNS = ("caption", "comment", "text")
SPLIT_COLUMN = "split"
DELIMITERS = (",", ";", "\t", "|")


def find_delimiter(header: str) -> str | None:
    """The character between the columns of a table with this header; None if it is no header."""
    for delimiter in DELIMITERS:
        columns = _columns(header, delimiter)
        if set(columns) & set(IMAGE_COLUMNS) and set(columns) & set(CAPTION_COLUMNS):
            return delimiter
    return None


def read_table(path: Path) -> Iterator[tuple[str, str, str | None]]:
    """Image name, caption and split (None if it has none) of each row. Raises ValueError, naming
    the line, for a row that does not fit the header."""
    text = read_text(path, "Name the file of your captions.")
    header, _, _ = text.partition("\n")
    delimiter = find_delimiter(header)
    columns = _columns(header, delimiter)
    image = next(columns.index(name) for name in IMAGE_COLUMNS if name in columns)
    caption = next(columns.index(name) for name in CAPTION_COLUMNS if name in columns)
    split = columns.index(SPLIT_COLUMN) if SPLIT_COLUMN in columns else None
    for line, fields in _rows(text, delimiter, path):
        fields = _correct(fields, columns, caption, delimiter)
        if len(fields) != len(columns) or not fields[image]:
            raise ValueError(
                f"{path}, line {line}: Expected {len(columns)} fields, as in the header "
                f"{header!r}, got {delimiter.join(fields)[:80]!r}. Correct the line; put a caption "
                f'that contains "{delimiter}" in quotation marks.'
            )
        word = "" if split is None else fields[split]
        if word and not parse_split(word):
            raise ValueError(
                f"{path}, line {line}: Expected a split, one of {', '.join(SPLITS)}, got {word!r}. "
                "Correct the line, or leave the field empty."
            )
        yield fields[image], fields[caption], parse_split(word)


def _columns(header: str, delimiter: str) -> list[str]:
    return [name.strip().strip('"').lower() for name in header.split(delimiter)]


def _rows(text: str, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line and the fields of each row below the header, without empty
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
        raise ValueError(
            f"{path}, line {line}: Expected matching quotation marks, got others ({error}). "
            'Correct the line: enclose a caption that begins with one in "...", and double each '
            "one in it."
        ) from error


def _correct(fields: list[str], columns: list[str], caption: int, delimiter: str) -> list[str]:
    """The fields without spaces around them. A caption in the last column may contain delimiters
    without quotation marks, and the delimiter that one row of Flickr30k lacks is added."""
    before, rest = fields[:caption], fields[caption:]
    if len(rest) > 1 and caption == len(columns) - 1:
        fields = [*before, delimiter.join(rest)]
    elif not rest and len(before) == caption and columns[caption - 1] == "comment_number":
        joined = re.fullmatch(r"\s*(\d+)\s+(.+)", before[-1])
        fields = [*before[:-1], *joined.groups()] if joined else fields
    return [field.strip() for field in fields]
