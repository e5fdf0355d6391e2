"""The output folder of a job at scale, on this machine or in object storage:

    job.json                       the job that the folder belongs to
    captions/00000/*.parquet       the captions of its first part
    checkpoints/00000/*.parquet    the ids of these captions, a file for each file of captions

Ray writes a file of captions first and its checkpoint last, and skips the ids in the checkpoints.
This module makes both agree again where a run was killed or files were deleted.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileType, LocalFileSystem

from captioning.app.row_captioner import CAPTIONS
from captioning.app.storage import open_storage, replace_when_written
from captioning.errors import UserError

_HAS_ERROR = ds.field("error").is_valid()


class CaptionStore:
    """The captions of a job in parts, numbered from 0."""

    def __init__(self, name: str):
        """`name`: a folder or URI."""
        self.name = name.rstrip("/")
        self.file_system, self._root = open_storage(self.name)

    @property
    def local_folder(self) -> Path | None:
        """The folder, if it is on this machine."""
        return Path(self._root) if isinstance(self.file_system, LocalFileSystem) else None

    def captions_folder(self, part: int) -> str:
        """The path, in `file_system`, of the captions of a part."""
        return f"{self._root}/captions/{part:05}"

    def checkpoints_folder(self, part: int) -> str:
        """The path, in `file_system`, of the checkpoints of a part."""
        return f"{self._root}/checkpoints/{part:05}"

    def bind(self, job: Mapping[str, str]) -> None:
        """Reserves the folder for a job (what must stay the same -> its fingerprint). Raises
        UserError if it belongs to another job already."""
        path = f"{self._root}/job.json"
        if self.file_system.get_file_info(path).type == FileType.NotFound:
            self.file_system.create_dir(self._root, recursive=True)
            with (
                replace_when_written(self.file_system, path) as unfinished,
                self.file_system.open_output_stream(unfinished) as stream,
            ):
                stream.write(json.dumps(dict(job), indent=1).encode())
            return
        with self.file_system.open_input_stream(path) as stream:
            try:
                bound = json.loads(stream.read())
            except ValueError:
                bound = {}
        bound = bound if isinstance(bound, dict) else {}
        differing = [key for key in job if bound.get(key) != job[key]]
        if differing:
            raise UserError(
                f"Expected the {' and '.join(differing)} that {self.name} was started with, got "
                "another. Name another folder for --output."
            )

    def repair(self, part: int) -> int:
        """Deletes files of captions without a checkpoint, and checkpoints without captions: their
        images are captioned again. Returns the number of rows left in the part."""
        captions = self._files(self.captions_folder(part))
        checkpoints = self._files(self.checkpoints_folder(part))
        by_checkpoint = {_checkpoint_of(name): name for name in captions}
        for checkpoint in checkpoints.keys() - by_checkpoint.keys():
            self.file_system.delete_file(checkpoints[checkpoint])
        for checkpoint in by_checkpoint.keys() - checkpoints.keys():
            self.file_system.delete_file(captions.pop(by_checkpoint[checkpoint]))
        return self._rows(captions.values()).count_rows()

    def count_errors(self, part: int) -> int:
        """Returns how many images of a part could not be captioned."""
        files = self._files(self.captions_folder(part))
        return self._rows(files.values()).count_rows(filter=_HAS_ERROR)

    def forget_errors(self, part: int) -> int:
        """Removes the rows with errors, so that their images are captioned again. Returns their
        number."""
        files = self._files(self.captions_folder(part))
        failed = self._rows(files.values()).to_table(columns=["__filename"], filter=_HAS_ERROR)
        for path in sorted(set(failed["__filename"].to_pylist())):
            name = path.rpartition("/")[2]
            checkpoint = f"{self.checkpoints_folder(part)}/{_checkpoint_of(name)}"
            rows = self._rows([path]).to_table(filter=~_HAS_ERROR)
            self.file_system.delete_file(checkpoint)  # first: captions without one are deleted
            if rows:
                pq.write_table(rows, path, filesystem=self.file_system)
                with replace_when_written(self.file_system, checkpoint) as unfinished:
                    pq.write_table(rows.select(["id"]), unfinished, filesystem=self.file_system)
            else:
                self.file_system.delete_file(path)
        return len(failed)

    def _files(self, folder: str) -> dict[str, str]:
        """Returns name -> path of the files in a folder, which may be missing."""
        entries = self.file_system.get_file_info(FileSelector(folder, allow_not_found=True))
        return {entry.base_name: entry.path for entry in entries if entry.type == FileType.File}

    def _rows(self, paths: Iterable[str]) -> ds.Dataset:
        return ds.FileSystemDataset.from_paths(
            list(paths), CAPTIONS, ds.ParquetFileFormat(), self.file_system
        )


def _checkpoint_of(name: str) -> str:
    """Returns the name of the checkpoint of a file of captions: a.parquet for a-0.parquet."""
    return f"{name.rpartition('-')[0]}.parquet"
