"""Writes files atomically and by one program at a time: a file is written whole or not at all.
Reads text."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from captioning.errors import UserError

_LONGEST_NAME = 240  # bytes; file systems allow 255
_LONGEST_ENDING = 16


@contextmanager
def write_atomically(path: Path, mode: str = "wb", shared: bool = False) -> Iterator[IO]:
    """Opens a file, in mode "wb" or "w" (UTF-8, lines end in "\\n"), that becomes `path` at the end
    of the block.

    Writes to a temporary file beside `path`, so that readers find the old file or the new one,
    never half of one. If the block raises, deletes the temporary file and keeps the old one. The
    next run replaces what a killed run left. For that, only one program may write the file at a
    time: see `only_writer`. A `shared` file may be written by several at once; the caller deletes
    what killed runs left, `path`.*.tmp.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f'Expected the mode "wb" or "w", which write a whole file, got {mode!r}.')
    text_format = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    name = f"{path.name}.{secrets.token_hex(4)}.tmp" if shared else _temporary_name(path)
    temporary = path.with_name(name)
    with (
        _replacing(path, temporary),
        temporary.open(mode.replace("w", "x"), **text_format) as file,
    ):
        yield file


@contextmanager
def replace_when_written(path: Path) -> Iterator[Path]:
    """As `write_atomically`, for a library that writes a file itself: yields the temporary path,
    with the ending of `path`."""
    temporary = path.with_name(_temporary_name(path))
    with _replacing(path, temporary):
        yield temporary


def _temporary_name(path: Path) -> str:
    """Always the same: the next run overwrites what a killed run left."""
    return f".saving-{_short_name(path)}"


def _short_name(path: Path) -> str:
    """The name of the file or, if other names could not contain it, a digest with its ending."""
    name = os.fsencode(path.name)
    if len(name) <= _LONGEST_NAME:
        return path.name
    return hashlib.sha256(name).hexdigest() + path.suffix[:_LONGEST_ENDING]


@contextmanager
def _replacing(path: Path, temporary: Path) -> Iterator[None]:
    with name_in_errors(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            yield
            temporary.replace(path)
        except BaseException:  # also after Ctrl-C
            with suppress(OSError):
                temporary.unlink()
            raise


@contextmanager
def name_in_errors(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Makes errors of the operating system in the block, such as that of a full disk, name `path`
    in one line, instead of no file or the `temporary` one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise  # it has its own message, or names another file
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Lets no other program write `path`, a file or a folder, until the end of the block.

    The operating system ends the lock with the process, even if that is killed. Only programs that
    use this function are kept out. Raises BlockingIOError if one of them writes `path` already.
    """
    from filelock import FileLock, Timeout  # here: captioning to the console needs no lock

    path = path.resolve()
    is_folder = path.is_dir()
    lock_path = (
        path / ".captioning.lock" if is_folder else path.with_name(f".{_short_name(path)}.lock")
    )
    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BlockingIOError(
            f"Expected one run at a time that writes {path}, got a second. Wait until the other "
            f"has ended, or name another {'folder' if is_folder else 'file'}."
        ) from error
    except OSError as error:  # names the folder: the user has never heard of the lock file
        raise OSError(error.errno, os.strerror(error.errno), str(lock_path.parent)) from error
    try:
        yield
    finally:
        if os.name != "nt":  # there, filelock removes the file
            lock_path.unlink(missing_ok=True)  # before another run can hold it
        lock.release()


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
    UserError if it is not UTF-8."""
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
