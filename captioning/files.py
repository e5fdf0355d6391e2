"""Writes files atomically: a file is written whole or not at all. Reads text."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from captioning.errors import UserError


@contextmanager
def write_atomically(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Opens a file, in mode "wb" or "w" (UTF-8, lines end in "\\n"), that becomes `path` at the end
    of the block.

    Writes to a temporary file beside `path`, so that readers find the old file or the new one,
    never half of one. If the block raises, deletes the temporary file and keeps the old one.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f'Expected the mode "wb" or "w", which write a whole file, got {mode!r}.')
    text_format = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    with _replacing(path, temporary), temporary.open(mode.replace("w", "x"), **text_format) as file:
        yield file


@contextmanager
def replace_when_written(path: Path) -> Iterator[Path]:
    """As `write_atomically`, for a library that writes a file itself: yields the temporary path,
    with the ending of `path`. Overwrites a file that a killed run left there."""
    temporary = path.with_name(f".saving-{path.name}")
    with _replacing(path, temporary):
        yield temporary


@contextmanager
def _replacing(path: Path, temporary: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
        temporary.replace(path)
    except BaseException:  # also after Ctrl-C
        temporary.unlink(missing_ok=True)
        raise


def require_mark(path: Path, mark: str) -> None:
    """Raises FileExistsError if there is a file at `path` without `mark`, a text in the files that
    this program wrote and may replace."""
    if path.exists() and mark.encode() not in path.read_bytes():
        raise FileExistsError(
            f"Expected a new file or one written by this program, got {path}, which is another "
            "file. Name a new file."
        )


def read_text(path: Path, advice: str, characters: int = -1) -> str:
    """Returns the text of a UTF-8 file, or its first `characters`, without a byte order mark and
    with "\\n" at all line ends. Raises FileNotFoundError, with `advice`, if the file is missing,
    ValueError if it is not UTF-8."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(characters)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no {path}. {advice}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"Expected text in UTF-8 in {path}, got other bytes ({error}). Save it as UTF-8, or "
            "create it again."
        ) from error
