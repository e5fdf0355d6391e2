"""Manifests: Parquet files that list the images to caption at scale.

A manifest has a row for each image, with the columns `id` (int64, different in each row), `path`
(a path or URI) and, if it holds the images themselves, `bytes` (the content of the file). Listing
millions of files takes hours; reading a manifest, also when a job resumes, takes seconds.
"""

import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import chain, islice

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileSystem, FileType

from captioning.app.storage import is_uri, open_storage, read_content, replace_when_written
from captioning.data.image_paths import find_images, image_extensions
from captioning.errors import UserError, one_line, printable

_PATHS = pa.schema([("id", pa.int64()), ("path", pa.string())])
_CONTENTS = _PATHS.append(pa.field("bytes", pa.binary()))
_ROWS_AT_ONCE = 100_000
_CONTENTS_AT_ONCE = 100  # some 10 MB


def write_manifest(
    sources: Sequence[str], manifest: str, contents: bool = False
) -> tuple[int, list[str]]:
    """Lists the images in `sources` (files, folders and patterns, see `find_images`, or folders in
    object storage, such as s3://bucket/photos) in the file or URI `manifest`; with `contents`, also
    copies the files into it. Ids count from 0. Returns the number of images, and a line for each
    file or folder that cannot be listed or read.

    Raises FileNotFoundError if there is no image, FileExistsError if `manifest` is another file,
    OSError if it cannot be written.
    """
    problems: list[str] = []
    images = _list_images(sources, problems)
    file_system, path = open_storage(manifest)
    _refuse_to_overwrite(file_system, path)
    schema, rows_at_once = (_CONTENTS, _CONTENTS_AT_ONCE) if contents else (_PATHS, _ROWS_AT_ONCE)
    rows = 0
    file_system.create_dir(path.rpartition("/")[0] or "/", recursive=True)
    with replace_when_written(file_system, path) as unfinished:
        with pq.ParquetWriter(unfinished, schema, filesystem=file_system) as writer:
            while paths := list(islice(images, rows_at_once)):
                columns = [np.arange(rows, rows + len(paths)), paths]
                if contents:
                    columns.append([_read(path, problems) for path in paths])
                writer.write_table(pa.table(columns, schema))
                rows += len(paths)
        if not rows:
            file_system.delete_file(unfinished)
            raise FileNotFoundError("\n".join(problems))
    return rows, problems


def read_manifest(manifest: str) -> tuple[np.ndarray, list[str], str]:
    """Returns the ids in a manifest, a file or a folder of files, as sorted int64; the names of
    those of its columns that a job reads; and a fingerprint of its ids and paths, if it has paths,
    in their order. Raises FileNotFoundError if it is missing, UserError if it has other columns or
    if an id is missing or occurs twice."""
    file_system, path = open_storage(manifest)
    if file_system.get_file_info(path).type == FileType.NotFound:
        raise FileNotFoundError(
            f"There is no {manifest}. Write one: captioning manifest FOLDER {manifest}"
        )
    try:
        rows = ds.dataset(path, filesystem=file_system, format="parquet")
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(
            f"Expected a Parquet file in {manifest}, got another ({one_line(error)}). Write one: "
            "captioning manifest."
        ) from error
    types = dict(zip(rows.schema.names, rows.schema.types, strict=True))
    if types.get("id") != pa.int64() or not {"path", "bytes"} & types.keys():
        columns = ", ".join(f"{name} ({kind})" for name, kind in types.items())
        raise UserError(
            f"Expected the columns id (int64) and path or bytes in {manifest}, got {columns}. "
            "Number the images, and name their paths."
        )
    column = rows.to_table(columns=["id"])["id"]
    if not len(column):
        raise UserError(f"Expected images in {manifest}, got no row. Write the manifest again.")
    ids = np.sort(column.drop_null().to_numpy())
    repeated = ids[1:][ids[1:] == ids[:-1]]
    if column.null_count or repeated.size:
        missing = f"{column.null_count} rows without one"
        problem = f"{repeated[0]} twice" if repeated.size else missing
        raise UserError(
            f"Expected a different id in each row of {manifest}, got {problem}. Number the rows "
            "again."
        )
    fingerprint = sha256()
    for batch in rows.to_batches(columns=[name for name in _PATHS.names if name in types]):
        fingerprint.update(batch["id"].to_numpy().tobytes())
        if "path" in types:
            fingerprint.update("".join(f"{path}\0" for path in batch["path"].to_pylist()).encode())
    return ids, [name for name in _CONTENTS.names if name in types], fingerprint.hexdigest()


def _refuse_to_overwrite(file_system: FileSystem, path: str) -> None:
    if file_system.get_file_info(path).type == FileType.NotFound:
        return
    try:
        columns = pq.read_schema(path, filesystem=file_system).names
        is_manifest = columns in (_PATHS.names, _CONTENTS.names)
    except (OSError, pa.ArrowInvalid):
        is_manifest = False
    if not is_manifest:
        raise FileExistsError(
            f"Expected a new file or a manifest, got {path}, which is something else. Name the "
            "manifest last: captioning manifest FOLDER photos.parquet"
        )


def _list_images(sources: Sequence[str], problems: list[str]) -> Iterator[str]:
    """Yields the path of each image on this machine, once, and then the URIs of those in storage.
    Adds to `problems` what cannot be listed."""
    image_paths, errors = find_images(source for source in sources if not is_uri(source))
    problems += map(str, errors)
    in_storage = (_list_storage(source, problems) for source in sources if is_uri(source))
    for path in chain(map(os.path.abspath, image_paths), *in_storage):
        if path.encode("utf-8", "replace").decode() == path:
            yield path
        else:
            problems.append(f"{printable(path)} has a name that is not UTF-8. Rename it.")


def _list_storage(uri: str, problems: list[str]) -> Iterator[str]:
    """As `_list_images`, folder by folder, without holding the whole list in memory."""
    file_system, root = open_storage(uri)
    folders, is_empty = [root], True
    while folders:
        folder = folders.pop()
        try:
            entries = file_system.get_file_info(FileSelector(folder))
        except OSError as error:
            problems.append(f"{uri.rstrip('/')}{folder[len(root) :]}: {one_line(error)}")
            is_empty = False
            continue
        for entry in sorted(entries, key=lambda entry: entry.path):
            if entry.base_name.startswith("."):
                continue
            if entry.type == FileType.Directory:
                folders.append(entry.path)
            elif os.path.splitext(entry.base_name)[1].lower() in image_extensions():
                is_empty = False
                yield f"{uri.rstrip('/')}{entry.path[len(root) :]}"
    if is_empty:
        problems.append(f"There is no image in {uri}. Check the name.")


def _read(path: str, problems: list[str]) -> bytes | None:
    try:
        return read_content(path)
    except OSError as error:
        problems.append(str(error))
        return None
