"""What a person names on a command line in, the paths of images out.

Not about reading them: whether a file holds an image shows when it is opened.
"""

import glob
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from captioning.images import image_extensions


def find_images(names: Iterable[str], skip: Path | None = None) -> tuple[list[Path], list[OSError]]:
    """The images that files, folders and patterns name, each once, in the order of the names; and
    an error for each folder or pattern without an image, and each folder that cannot be read.

    A folder stands for the images in it and below it, in reading order (2.jpg before 10.jpg): the
    files whose extension belongs to an image format that Pillow reads, hidden ones left out. A
    pattern (`*`, `?`, `[...]`, `**`) stands for its matches in reading order, as if each had been
    named. Neither finds what lies in the folder `skip`. A file that is named is taken whatever its
    extension, and even if it is missing: opening it will tell.
    """
    images: dict[str, Path] = {}
    problems: list[OSError] = []
    for name in names:
        if os.path.isdir(name):
            found, unread = images_below(Path(name), skip)
            problems += unread
        elif glob.has_magic(name) and not os.path.lexists(name):  # photo[1].jpg may be a file
            found = _matches(name, skip, problems)
        else:
            found = [Path(name)]
        if not found:
            problems.append(_nothing_found(name, skip))
        for path in found:
            images.setdefault(place(path), path)
    return list(images.values()), problems


def images_below(folder: Path, skip: Path | None = None) -> tuple[list[Path], list[OSError]]:
    """The images in a folder and below it, as of `find_images`, and an error for each folder that
    cannot be read."""
    found, problems = [], []
    for place, subfolders, names in os.walk(folder, onerror=problems.append):
        subfolders[:] = [subfolder for subfolder in subfolders if not subfolder.startswith(".")]
        found += [
            Path(place, name)
            for name in names
            if not name.startswith(".")
            and Path(name).suffix.lower() in image_extensions()
            and not _is_below(Path(place, name), skip)
        ]
    return sorted(found, key=_reading_order), problems


def _matches(pattern: str, skip: Path | None, problems: list[OSError]) -> list[Path]:
    found = []
    for match in sorted(map(Path, glob.iglob(pattern, recursive=True)), key=_reading_order):
        if match.is_dir():
            in_folder, unread = images_below(match, skip)
            found += in_folder
            problems += unread
        elif not _is_below(match, skip):
            found.append(match)
    return found


def _reading_order(path: Path) -> list[tuple]:
    """Folder by folder, numbers by their value, capitals beside small letters."""
    return [*_order_of_folder(path.parent), _order_of_name(path.name)]


@lru_cache  # one for all the files in it: the order of 100,000 files takes memory enough
def _order_of_folder(folder: Path) -> list[tuple]:
    return [_order_of_name(part) for part in folder.parts]


def _order_of_name(name: str) -> tuple:
    return [int(p) if p.isdecimal() else p.casefold() for p in re.split(r"(\d+)", name)], name


def place(path: str | Path) -> str:
    """One text for each file, however it is named."""
    return os.path.normcase(os.path.abspath(path))


def _is_below(path: Path, folder: Path | None) -> bool:
    return folder is not None and Path(place(folder)) in Path(place(path)).parents


def _nothing_found(name: str, skip: Path | None) -> FileNotFoundError:
    outside = f" outside {skip}" if skip else ""
    if os.path.isdir(name):
        return FileNotFoundError(
            f"There is no image in the folder {name}{outside}. Name files whose extension is "
            "unusual."
        )
    return FileNotFoundError(f"No file{outside} matches {name}. Check the folder and the pattern.")
