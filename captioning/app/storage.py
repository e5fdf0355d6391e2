"""Opens files on this machine and in object storage, by a path or a URI such as
s3://bucket/photo.jpg, as file systems of pyarrow.

Credentials, region and endpoint of object storage come from the environment, as for the programs of
the provider (AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from pyarrow.fs import FileSystem, LocalFileSystem

from captioning.errors import UserError, one_line


def is_uri(name: str) -> bool:
    """Returns whether the name is a URI, not a path."""
    return "://" in name


def open_storage(name: str) -> tuple[FileSystem, str]:
    """Returns the file system of a path or URI, and the path in it. The characters of a URI stand
    for themselves: "%20" is not a space. Raises UserError for a URI of unknown storage."""
    scheme, separator, rest = name.partition("://")
    if not separator or scheme == "file":
        return LocalFileSystem(), os.path.abspath(rest if separator else name)
    bucket, _, key = rest.partition("/")
    file_system, root = _open_bucket(f"{scheme}://{bucket}")
    return file_system, f"{root}/{key}".rstrip("/")


def read_content(name: str) -> bytes:
    """Returns the content of a file. Raises FileNotFoundError if it is missing, and an OSError that
    names it if the storage cannot be reached."""
    file_system, path = open_storage(name)
    try:
        with file_system.open_input_stream(path) as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError) as error:
        problem = f"There is no file {name}. Check the name and the folder."
        raise FileNotFoundError(problem) from error
    except OSError as error:
        raise OSError(f"{name} cannot be read ({one_line(error)}). Try it again later.") from error


@contextmanager
def replace_when_written(file_system: FileSystem, path: str) -> Iterator[str]:
    """Yields the path of an unfinished file, which becomes `path` at the end of the block. It stays
    unfinished if the block raises an error."""
    unfinished = f"{path}.unfinished"
    yield unfinished
    file_system.move(unfinished, path)


@cache
def _open_bucket(uri: str) -> tuple[FileSystem, str]:
    try:
        return FileSystem.from_uri(uri)
    except ValueError as error:
        raise UserError(
            f"Expected a path, or a URI that begins with s3:// or gs://, got {uri} "
            f"({one_line(error)}). Check the name."
        ) from error
