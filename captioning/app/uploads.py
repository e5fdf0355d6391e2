"""The folder of the demo page's files: uploaded photographs, and attention maps on their way to the
browser. Files are deleted soon after they have been used."""

import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

# Seconds after which a file is deleted: long enough for the browser to load it and, in a long
# queue, for a photograph to wait for its turn.
ANSWERED_SECONDS = 10  # since the upload of a photograph that has been captioned
MAX_SECONDS = 120


class Uploads:
    """Deletes the files in a folder, except those that are to stay: the examples of the page."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._kept: set[Path] = set()
        self._answered: set[Path] = set()
        self._names: Collection[set[str]] = ()

    def keep_present_files(self, names: Collection[set[str]] = ()) -> None:
        """Keeps what is in the folder now. `names`: sets in which Gradio remembers files; a deleted
        file is removed from them as well."""
        self._kept = set(self._folder.rglob("*"))
        self._names = names

    def mark_answered(self, path: Path) -> None:
        """Marks a photograph that has been captioned. It is not deleted at once: the browser may
        still load it, or another visitor may have uploaded the same one."""
        if path not in self._kept:
            self._answered.add(path)

    def delete_old(self) -> None:
        """Deletes the files and empty folders whose time is over."""
        now = time.time()
        for folder, _, names in os.walk(self._folder, topdown=False):
            for path in [*(Path(folder, name) for name in names), Path(folder)]:
                seconds = ANSWERED_SECONDS if path in self._answered else MAX_SECONDS
                if path not in self._kept and path != self._folder:
                    with suppress(OSError):  # gone already, or a folder that is not empty
                        if now - path.stat().st_mtime > seconds:
                            self._delete(path)

    def _delete(self, path: Path) -> None:
        path.rmdir() if path.is_dir() else path.unlink()
        self._answered.discard(path)
        for names in self._names:
            names.discard(str(path))
