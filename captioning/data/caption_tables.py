"""Tables of captions: CSV with a header that names its columns, in any order and beside any others:
image, caption and optionally split. Kaggle's `captions.txt` of Flickr8k (image,caption),
`results.csv` of Flickr30k (image_name| comment_number| comment) and `metadata.csv` of Hugging Face
(file_name,text) are such tables.

The other formats have the same rows. `choose_columns`, `require_split` and `parse_rows`, which
names all bad rows at once, serve them as well.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from captioning.data.dataset import parse_split
from captioning.errors import UserError
from captioning.settings import SPLITS

# Image name, caption and split; None for a caption without a split.
Row = tuple[str, str, str | None]

IMAGE_COLUMNS = ("image", "image_name", "file_name", "filename")
CAPTION_COLUMNS = ("caption", "comment", "text")
SPLIT_COLUMN = "split"
DELIMITERS = (",", ";", "\t", "|")

_FURTHER_CAPTION = re.compile(rf"({'|'.join(CAPTION_COLUMNS)})s?[ _-]?\d+")
_ERRORS_SHOWN = 20

# Empty lines, and the line by which Excel states its delimiter.
_BEFORE_HEADER = re.compile(r'(?:\s*\n|"?sep=."?[ \t]*\n)*')

_Source = TypeVar("_Source")
_Parsed = TypeVar("_Parsed")


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


def has_captions(columns: Iterable[str]) -> bool:
    """Returns whether there are a column of images and one of captions."""
    columns = set(columns)
    return bool(columns & set(IMAGE_COLUMNS) and columns & set(CAPTION_COLUMNS))


def choose_columns(columns: Iterable[str], where: str) -> tuple[str, str]:
    """Returns the names of the column of images and of that of captions. Raises UserError if
    another column holds captions, too: one of them would be lost."""
    columns = list(columns)
    image = next(name for name in IMAGE_COLUMNS if name in columns)
    captions = [
        name for name in columns if name in CAPTION_COLUMNS or _FURTHER_CAPTION.fullmatch(name)
    ]
    if len(captions) > 1:
        raise UserError(
            f"{where}: Expected one column of captions, got {', '.join(captions)}. Put each "
            "caption of an image in a row of its own, or rename the columns to be ignored."
        )
    return image, captions[0]


def require_split(word: str, where: str) -> str | None:
    """Returns the split that a word means; None for an empty field. Raises UserError for any other
    word."""
    split = parse_split(word)
    if word.strip() and not split:
        raise UserError(
            f"{where}: Expected a split, one of {', '.join(SPLITS)}, got {word!r}. Correct it, or "
            "leave it empty."
        )
    return split


def parse_rows(
    sources: Iterable[_Source], parse: Callable[[_Source], Iterable[_Parsed]]
) -> Iterator[_Parsed]:
    """Yields the rows that `parse` finds in each source. Raises UserError, after the last one, with
    the errors of all sources: a line for each, 20 at most."""
    errors: list[str] = []
    sources = iter(sources)
    while True:
        try:
            rows = list(parse(next(sources)))
        except StopIteration:
            break
        except UserError as error:  # of a source, or of an iterator, which ends with it
            errors.append(str(error))
        else:
            yield from rows
    if len(errors) > _ERRORS_SHOWN:
        errors[_ERRORS_SHOWN:] = [f"... and {len(errors) - _ERRORS_SHOWN:,} more bad rows."]
    if errors:
        raise UserError("\n".join(errors))


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
