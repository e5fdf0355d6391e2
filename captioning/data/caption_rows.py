"""Parses the rows of caption files: the names of their columns, and the errors of all bad rows at
once."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from captioning.data.dataset import parse_split
from captioning.errors import UserError
from captioning.settings import SPLITS

IMAGE_COLUMNS = ("image", "image_name", "file_name", "filename")
CAPTION_COLUMNS = ("caption", "comment", "text")
SPLIT_COLUMN = "split"

# Image name, caption and split; None for a caption without a split.
Row = tuple[str, str, str | None]

_Source = TypeVar("_Source")

_FURTHER_CAPTION = re.compile(rf"({'|'.join(CAPTION_COLUMNS)})s?[ _-]?\d+")
_ERRORS_SHOWN = 20


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
    sources: Iterable[_Source], parse: Callable[[_Source], Iterable[Row]]
) -> Iterator[Row]:
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
