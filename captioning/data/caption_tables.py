"""Tables of captions: CSV with a header that names its columns, in any order and beside any others:
image, caption and optionally split. Kaggle's `captions.txt` of Flickr8k (image,caption),
`results.csv` of Flickr30k (image_name| comment_number| comment) and `metadata.csv` of Hugging Face
(file_name,text) are such tables."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from captioning.data.caption_rows import (
    SPLIT_COLUMN,
    Row,
    choose_columns,
    has_captions,
    parse_rows,
    require_split,
)
from captioning.errors import UserError

DELIMITERS = (",", ";", "\t", "|")

# Empty lines, and the line by which Excel states its delimiter.
_BEFORE_HEADER = re.compile(r'(?:\s*\n|"?sep=."?[ \t]*\n)*')


def find_header(text: str) -> tuple[int, str]:
    """Returns the position at which the header of a table begins, and the header."""
    start = _BEFORE_HEADER.match(text).end()
    return start, text[start:].partition("\n")[0]


def find_delimiter(header: str) -> str | None:
    """Returns the character between the columns of a table with this header; None if the text is
    not a header."""
    return next(
        (delimiter for delimiter in DELIMITERS if has_captions(_columns(header, delimiter))), None
    )


def read_table(text: str, path: Path) -> Iterator[Row]:
    """Yields image name, caption and split (None if it has none) of each row of the table `text`
    from the file `path`. Raises UserError, naming the lines, for rows that do not fit the header.
    """
    start, header = find_header(text)
    delimiter = find_delimiter(header)
    columns = _columns(header, delimiter)
    first_line = 1 + text[:start].count("\n")
    image, caption = map(columns.index, choose_columns(columns, f"{path}, line {first_line}"))
    split = columns.index(SPLIT_COLUMN) if SPLIT_COLUMN in columns else None

    def parse(numbered_fields: tuple[int, list[str]]) -> list[Row]:
        line, fields = numbered_fields
        fields = _correct(fields, columns, caption, delimiter)
        where = f"{path}, line {line}"
        if len(fields) != len(columns) or not fields[image]:
            raise UserError(
                f"{where}: Expected {len(columns)} fields, as in the header {header!r}, got "
                f"{delimiter.join(fields)[:80]!r}. Correct the line; put a caption that contains "
                f'"{delimiter}" in quotation marks.'
            )
        word = "" if split is None else fields[split]
        return [(fields[image], fields[caption], require_split(word, where))]

    return parse_rows(_rows(text[start:], first_line, delimiter, path), parse)


def _columns(header: str, delimiter: str) -> list[str]:
    return [name.strip().strip('"').lower() for name in header.split(delimiter)]


def _rows(
    text: str, first_line: int, delimiter: str, path: Path
) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of the first line and the fields of each row below the header, except empty
    rows."""
    # Flickr30k's captions contain quotation marks that do not enclose a field.
    quoting = csv.QUOTE_NONE if delimiter == "|" else csv.QUOTE_MINIMAL
    rows = csv.reader(io.StringIO(text), delimiter=delimiter, quoting=quoting, strict=True)
    line = first_line
    try:
        for fields in rows:
            if line > first_line and any(map(str.strip, fields)):
                yield line, fields
            line = rows.line_num + first_line
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
