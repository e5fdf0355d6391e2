"""What a person names on a command line in, the paths of images out.

Not about reading them: whether a file holds an image shows when it is opened.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from captioning.data.images import image_extensions
from captioning.data.names import Names


def find_images(names: Iterable[str], skip: Path | None = None) -> tuple[Names, list[OSError]]:
    """The images that files, folders and patterns name, each once, in the order of the names; and
    an error for each folder or pattern without an image, and each folder that cannot be read.

    A folder stands for the images in it and below it, in reading order (2.jpg before 10.jpg): the
    files whose extension belongs to an image format that Pillow reads, hidden ones left out. A
    pattern (`*`, `?`, `[...]`, `**`) stands for its matches in reading order, as if each had been
    named. Neither finds what lies in the folder `skip`. A file that is named is taken whatever its
    extension, and even if it is missing: opening it will tell. Paths are texts.
    """
    images, places = Names(), Names()
    problems: list[OSError] = []
    for name in names:
        nothing = True
        for path in _find(name, skip, problems):
            nothing = False
            if places.add(place(path)):
                images.add(path)
        if nothing:
            problems.append(_nothing_found(name, skip))
    return images, problems


def list_images(folder: str | Path, skip: Path | None = None) -> tuple[list[str], list[OSError]]:
    """The images in a folder and below it, as of `find_images`, and an error for each folder that
    cannot be read."""
    problems: list[OSError] = []
    return list(_find_below(folder, skip, problems)), problems


def _find(name: str, skip: Path | None, problems: list[OSError]) -> Iterator[str]:
    """What one name stands for, a path as often as it comes. A folder that cannot be read is added
    to `problems`, here and below."""
    if os.path.isdir(name):
        yield from _find_below(name, skip, problems)
    elif glob.has_magic(name) and not os.path.lexists(name):  # photo[1].jpg may be a file
        for match in sorted(map(plain, glob.iglob(name, recursive=True)), key=_order_of_parts):
            if os.path.isdir(match):
                yield from _find_below(match, skip, problems)
            elif not _is_below(match, skip):
                yield match
    else:
        yield plain(name)


def _find_below(folder: str | Path, skip: Path | None, problems: list[OSError]) -> Iterator[str]:
    found = _walk(plain(folder), problems)
    return (path for path in found if not _is_below(path, skip))


def _walk(folder: str, problems: list[OSError]) -> Iterator[str]:
    """The images in a folder and below it, in reading order, folders among the files; what is
    hidden is left out, and links to folders are not followed."""
    nothing = folder, [], []
    _, folders, files = next(os.walk(folder, onerror=problems.append), nothing)
    below = {name for name in folders if not os.path.islink(os.path.join(folder, name))}
    images = [name for name in files if _suffix(name) in image_extensions()]
    names = sorted([*below, *images])  # for those that are equal in reading order
    for name in sorted(names, key=_reading_order):
        if not name.startswith("."):
            path = name if folder == os.curdir else os.path.join(folder, name)
            yield from _walk(path, problems) if name in below else [path]


def plain(path: str | Path) -> str:
    """The path without what changes nothing, such as the dot in ./photos."""
    return str(Path(path))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _order_of_parts(path: str) -> str:
    """Part by part, those that are equal in reading order by their letters: as a text, too."""
    return "\0".join(order for part in Path(path).parts for order in (_reading_order(part), part))


def _reading_order(name: str) -> str:
    """Numbers by their value, capitals beside small letters: as a text, since lists of words and
    numbers would take three times the memory."""
    return re.sub(r"\d+", _number, name.casefold())


def _number(digits: re.Match) -> str:
    """Before any letter, behind the end of a name, and shorter ones first."""
    value = str(int(digits[0]))
    return f"\1{len(value):03}{value}"


def place(path: str | Path) -> str:
    """One text for each file, however it is named."""
    return os.path.normcase(os.path.abspath(path))


def _is_below(path: str, folder: Path | None) -> bool:
    return folder is not None and Path(place(folder)) in Path(place(path)).parents


def _nothing_found(name: str, skip: Path | None) -> FileNotFoundError:
    outside = f" outside {skip}" if skip else ""
    if os.path.isdir(name):
        return FileNotFoundError(
            f"There is no image in the folder {name}{outside}. Name files whose extension is "
            "unusual."
        )
    return FileNotFoundError(f"No file{outside} matches {name}. Check the folder and the pattern.")
