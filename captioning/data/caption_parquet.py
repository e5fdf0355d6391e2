"""Captions in Parquet files. They have the columns of other tables of captions (see
`captioning.data.caption_tables`), all of text. Needs pyarrow, of the extra `parquet`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioning.data.caption_tables import (
    SPLIT_COLUMN,
    Row,
    choose_columns,
    has_captions,
    parse_rows,
    require_split,
)
from captioning.errors import UserError, one_line

MAGIC = b"PAR1"  # the first bytes of a Parquet file


def read_parquet(path: Path) -> Iterator[Row]:
    """Yields image name, caption and split (None if it has none) of each row. Reads the file in
    parts. Raises UserError for a damaged file, for other columns and, naming the rows, for rows
    without an image or a caption, or with an unknown split."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns = _choose_columns(file.schema_arrow, path)
            image, caption = columns[:2]

            def parse(numbered_row: tuple[int, dict[str, Any]]) -> list[Row]:
                number, row = numbered_row
                where = f"{path}, row {number}"
                if not (row[image] or "").strip() or row[caption] is None:
                    raise UserError(
                        f"{where}: Expected an image and a caption, got {row[image]!r:.80} and "
                        f"{row[caption]!r:.80}. Correct the row, or delete it."
                    )
                split = require_split(row.get(SPLIT_COLUMN) or "", where)
                return [(row[image], row[caption], split)]

            rows = (row for part in file.iter_batches(columns=columns) for row in part.to_pylist())
            yield from parse_rows(enumerate(rows, start=1), parse)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if getattr(error, "errno", None) is not None:  # of the disk, such as a missing file
            raise
        raise UserError(
            f"Expected a whole Parquet file in {path}, got a damaged one ({one_line(error)}). "
            "Fetch the file again, or write it again."
        ) from error


def _choose_columns(schema: Any, path: Path) -> list[str]:
    """Returns the names of the columns of images, captions and, if there is one, splits. Raises
    UserError if they are missing or do not hold text. `schema`: a schema of pyarrow."""
    from pyarrow import types

    if not has_captions(schema.names):
        raise UserError(
            f"Expected the columns image and caption in {path}, got {', '.join(schema.names)}. "
            "Rename the columns."
        )
    columns = [*choose_columns(schema.names, str(path))]
    if SPLIT_COLUMN in schema.names:
        columns.append(SPLIT_COLUMN)
    for name in columns:
        if schema.names.count(name) > 1:
            raise UserError(
                f"Expected one column {name} in {path}, got {schema.names.count(name)}. Rename the "
                "others."
            )
        kind = schema.field(name).type
        values = kind.value_type if types.is_dictionary(kind) else kind
        if not (types.is_string(values) or types.is_large_string(values) or types.is_null(values)):
            raise UserError(
                f"Expected text in the column {name} of {path}, got {kind}. Write the file again "
                "with text in it; for an image, its path below the folder of the images."
            )
    return columns
