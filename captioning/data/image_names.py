"""Matches the image names that a caption file uses with the images in a folder.

Tables are typed by hand, come from another computer, or lost their folders and endings: what is
meant is found as long as it is unambiguous.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath, PureWindowsPath

from captioning.data.images import image_extensions


def match_image_names(names: Iterable[str], images: Iterable[str]) -> dict[str, str]:
    """Name in a caption file -> name of the image in the folder, with "/" between its parts.

    An image of just that name comes first. Otherwise the only image is taken that has the same file
    name in whichever folder, or the same name but for the case of letters, for the Unicode form of
    accents (NFC, NFD), or for an ending that the caption file leaves out; unless another name of
    the caption file would fit as well. A name that fits no image stays as it is.
    """
    paths = {name: PureWindowsPath(name).as_posix() for name in names}  # knows both slashes
    images = dict.fromkeys(images)
    matches = {path: path for path in paths.values()}
    unmatched = [path for path in matches if path not in images]
    for key in (_file_name, _folded_path, _folded_file_name, _folded_stem, _folded_file_stem):
        names_of_key = Counter(map(key, matches))
        images_of_key = Counter(map(key, images))
        only = {key(image): image for image in images if images_of_key[key(image)] == 1}
        for path in unmatched:
            is_only_name = names_of_key[key(path)] == 1
            may_match = key not in (_folded_stem, _folded_file_stem) or not _has_ending(path)
            if matches[path] == path and is_only_name and may_match:
                matches[path] = only.get(key(path), path)
    return {name: matches[path] for name, path in paths.items()}


def similar_images(names: Iterable[str], images: Iterable[str]) -> dict[str, str]:
    """Name -> an image whose file name differs in nothing but case, accents or ending, for each
    of the names that has one."""
    by_stem = {_folded_file_stem(image): image for image in images}
    stems = {name: _folded_file_stem(name) for name in names}
    return {name: by_stem[stem] for name, stem in stems.items() if stem in by_stem}


def _file_name(path: str) -> str:
    return PurePosixPath(path).name


def _folded_path(path: str) -> str:
    """Equal for texts that look alike, whatever the case of their letters."""
    folded = unicodedata.normalize("NFC", path).casefold()
    return unicodedata.normalize("NFC", folded)


def _folded_file_name(path: str) -> str:
    return _folded_path(_file_name(path))


def _folded_stem(path: str) -> str:
    return _folded_path(os.path.splitext(path)[0] if _has_ending(path) else path)


def _folded_file_stem(path: str) -> str:
    return _folded_stem(_file_name(path))


def _has_ending(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in image_extensions()
