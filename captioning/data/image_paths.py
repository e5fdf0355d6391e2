"""Finds images by the names of files, folders and patterns. Opens no file: see
`captioning.data.images`."""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from PIL import Image

# Images that Pillow does not read, or only with pillow-heif. The check reports those that cannot be
# read.
_OTHER_EXTENSIONS = frozenset(
    ".heic .heif .hif .jxl .jxr .svg .exr .hdr .xcf"
    " .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .pef .srw".split()
)

_Images = dict[str, str]  # resolved path -> path


def find_images(names: Iterable[str], skip: Path | None = None) -> tuple[list[str], list[OSError]]:
    """Returns the paths of the images that files, folders and patterns name, each once, in the
    order of the names; and an error for each folder or pattern without an image, and for each
    folder that cannot be read.

    A folder stands for the images in it and below it, in reading order (2.jpg before 10.jpg): the
    files whose ending is one of `image_extensions`, except hidden ones. Links to folders are
    followed, each folder once. A pattern (`*`, `?`, `[...]`, `**`) stands for its matches in
    reading order, as if you had named each. Folders and patterns leave out the folder `skip`. A
    file that you name is included whatever its ending, even if it is missing: opening it raises
    the error.
    """
    images: _Images = {}
    problems: list[OSError] = []
    for name in names:
        images_of_name = _find(name, skip, problems)
        if not images_of_name:
            problems.append(_nothing_found(name, skip))
        _add(images, images_of_name)
    return [*images.values()], problems


def list_image_names(folder: Path) -> list[str]:
    """Returns the names of all images in `folder` and below it, in reading order: their paths below
    `folder`, with "/" between the parts. Raises FileNotFoundError if there is none, OSError if a
    folder cannot be read."""
    problems: list[OSError] = []
    images = _images_below(normalise(folder), None, problems)
    if problems and folder.is_dir():
        raise problems[0]
    if not images:
        raise FileNotFoundError(
            f"There is no image in {folder}. Name the folder of your photographs, or download "
            "Flickr8k: `captioning download`."
        )
    return [Path(path).relative_to(folder).as_posix() for path in images.values()]


@cache
def image_extensions() -> frozenset[str]:
    """Returns the endings of image files, such as ".jpg": those of Pillow's formats whose MIME type
    is that of an image, and those of image formats that Pillow does not read. Pillow also opens
    films, PostScript and HDF5 files, which are in folders for other reasons."""
    Image.init()
    return _OTHER_EXTENSIONS.union(
        extension
        for extension, form in Image.registered_extensions().items()
        if form in Image.OPEN and Image.MIME.get(form, "").startswith("image/")
    )


def normalise(path: str | Path) -> str:
    """Returns the path without redundant parts, such as the dot in ./photos."""
    return str(Path(path))


def resolve(path: str | Path) -> str:
    """Returns the same path for a file however it is named. Links to folders are resolved; a link
    to the file itself is not."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.normcase(os.path.join(os.path.realpath(folder), name))


def _find(name: str, skip: Path | None, problems: list[OSError]) -> _Images:
    """Returns the images that a name stands for. Adds folders that cannot be read to `problems`."""
    if os.path.isdir(name):
        return _images_below(normalise(name), skip, problems)
    if not glob.has_magic(name) or os.path.lexists(name):  # photo[1].jpg may be a file
        return {resolve(name): normalise(name)}
    images: _Images = {}
    for match in sorted(map(normalise, _matches(name)), key=_order_of_path):
        if os.path.isdir(match):
            _add(images, _images_below(match, skip, problems))
        elif not _is_within(match, skip):
            _add(images, {resolve(match): match})
    return images


def _add(images: _Images, new_images: _Images) -> None:
    """Adds images that are new; others keep their place and path."""
    for resolved, path in new_images.items():
        images.setdefault(resolved, path)


def _matches(pattern: str) -> Iterator[str]:
    """As `glob.iglob`, which never ends where a link leads back to a folder above it."""
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    position = parts.index("**")
    rest = parts[position + 1 :]
    for folder in glob.iglob(os.path.join(*parts[:position])) if position else [os.curdir]:
        for path, _, _ in _walk(normalise(folder), []):
            yield from _matches(os.path.join(glob.escape(path), *rest)) if rest else [path]


def _images_below(folder: str, skip: Path | None, problems: list[OSError]) -> _Images:
    images = []  # order, resolved path, path
    for path, real_path, names in _walk(folder, problems):
        if _is_within(path, skip):
            continue
        order = _order_of_path(path)
        for name in names:
            if os.path.splitext(name)[1].lower() in image_extensions():
                resolved = os.path.normcase(os.path.join(real_path, name))
                images.append((order + _order_of_part(name), resolved, _join(path, name)))
    return {resolved: path for _, resolved, path in sorted(images)}


def _walk(folder: str, problems: list[OSError]) -> Iterator[tuple[str, str, list[str]]]:
    """Yields the folder and each folder below it: its path, its path with all links resolved, and
    the names of its files. Leaves out hidden files and folders. Yields a folder once, by its own
    name rather than by a link to it."""
    folders, links, visited = [folder], [], set()
    while folders or links:
        path = folders.pop() if folders else links.pop()
        real_path = os.path.realpath(path)
        if real_path in visited:
            continue
        visited.add(real_path)
        try:
            with os.scandir(path) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            problems.append(error)
            continue
        visible.sort(key=lambda entry: entry.name, reverse=True)  # the first is walked first
        names = []
        for entry in visible:
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(_join(path, entry.name))
            else:
                names.append(entry.name)
        yield path, real_path, names


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False


def _join(folder: str, name: str) -> str:
    return name if folder == os.curdir else os.path.join(folder, name)


def _order_of_path(path: str) -> str:
    return "".join(map(_order_of_part, Path(path).parts))


def _order_of_part(name: str) -> str:
    """Returns a text that sorts as people read: numbers by their value, capitals beside small
    letters. Names that differ in nothing else are sorted by their characters."""
    return f"{re.sub('[0-9]+', _order_of_number, name.casefold())}\0{name}\0"


def _order_of_number(digits: re.Match) -> str:
    """Returns a text that sorts before any letter and after the end of a name, shorter numbers
    first."""
    value = str(int(digits[0]))
    return f"\1{len(value):03}{value}"


def _is_within(path: str, folder: Path | None) -> bool:
    if folder is None:
        return False
    real_path = Path(os.path.realpath(path))
    return Path(os.path.realpath(folder)) in (real_path, *real_path.parents)


def _nothing_found(name: str, skip: Path | None) -> FileNotFoundError:
    outside = f" outside {skip}" if skip else ""
    if os.path.isdir(name):
        return FileNotFoundError(
            f"There is no image in the folder {name}{outside}. Name the files themselves if their "
            "endings are unusual."
        )
    return FileNotFoundError(f"No file{outside} matches {name}. Check the folder and the pattern.")
