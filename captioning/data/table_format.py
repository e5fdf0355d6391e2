"""A table of captions in, its rows out: image, caption, split.

A table has a header that names its columns, in any order and beside any others: the image, the
caption and, if it likes, the split. Kaggle's `captions.txt` of Flickr8k (image,caption) and
`results.csv` of Flickr30k (image_name| comment_number| comment) are such tables.
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


def delimiter_of(header: str) -> str | None:
    """What divides the columns of a table with this header; None if it is no header."""
    for delimiter in DELIMITERS:
        columns = _columns(header, delimiter)
        if set(columns) & set(IMAGE_COLUMNS) and set(columns) & set(CAPTION_COLUMNS):
            return delimiter
    return None


def read_table(path: Path) -> Iterator[tuple[str, str, str | None]]:
    """Each row's image name, caption and split, if it has one. Raises ValueError, naming the line,
    for a row that does not fit the header."""
    text = read_text(path, "Name the file of your captions.")
    header, _, _ = text.partition("\n")
    delimiter = delimiter_of(header)
    columns = _columns(header, delimiter)
    image = next(columns.index(name) for name in IMAGE_COLUMNS if name in columns)
    caption = next(columns.index(name) for name in CAPTION_COLUMNS if name in columns)
    split = columns.index(SPLIT_COLUMN) if SPLIT_COLUMN in columns else None
    for line, fields in _rows(text, delimiter, path):
        fields = _fitted(fields, columns, caption, delimiter)
        if len(fields) != len(columns) or not fields[image]:
            raise ValueError(
                f"{path}, line {line}: wanted {len(columns)} fields, as in the header "
                f"{header!r}. Received: {delimiter.join(fields)[:80]!r}. A caption that holds "
                f'"{delimiter}" belongs in quotation marks. Mend the line.'
            )
        word = "" if split is None else fields[split]
        if word and not parse_split(word):
            raise ValueError(
                f"{path}, line {line}: wanted a split, one of {', '.join(SPLITS)}. "
                f"Received: {word!r}. Mend the line, or leave the field empty."
            )
        yield fields[image], fields[caption], parse_split(word)


def _columns(header: str, delimiter: str) -> list[str]:
    return [name.strip().strip('"').lower() for name in header.split(delimiter)]


def _rows(text: str, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line on which each row below the header begins, and its fields; empty rows left out."""
    # Flickr30k's captions hold quotation marks that are only that.
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
            f"{path}, line {line}: the quotation marks do not fit ({error}). Wanted, around a "
            'caption that begins with one: "...", and each one in it doubled. Mend the line.'
        ) from error


def _fitted(fields: list[str], columns: list[str], caption: int, delimiter: str) -> list[str]:
    """The fields without the blanks around them, and with two slips mended: delimiters in a last
    caption that nobody quoted, and the one that Flickr30k's file lacks before a caption."""
    before, last = fields[:caption], fields[caption:]
    if len(last) > 1 and caption == len(columns) - 1:
        fields = [*before, delimiter.join(last)]
    elif not last and len(before) == caption and columns[caption - 1] == "comment_number":
        glued = re.fullmatch(r"\s*(\d+)\s+(.+)", before[-1])
        fields = [*before[:-1], *glued.groups()] if glued else fields
    return [field.strip() for field in fields]
