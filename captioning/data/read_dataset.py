"""Reads caption files in any of the common formats, and joins them with a folder of images into a
data set.

The format is recognised by the content of a file, never by its name: Flickr8k's lines (see
`captioning.data.flickr8k`), a table (`captioning.data.caption_tables`), JSON
(`captioning.data.caption_json`) or Parquet (`captioning.data.caption_parquet`). Tables are often
typed by hand, come from another computer, or have lost their folders and endings. An image name in
them is matched with an image in the folder as long as the match is unambiguous.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath, PureWindowsPath

from captioning.data.caption_json import read_json
from captioning.data.caption_parquet import MAGIC, read_parquet
from captioning.data.caption_tables import Row, find_delimiter, find_header, read_table
from captioning.data.dataset import Captions, Dataset, Splits, complete_splits, parse_split
from captioning.data.flickr8k import CAPTION_FILE, CAPTION_LINE, read_captions, read_splits
from captioning.data.image_paths import image_extensions, list_image_names
from captioning.errors import UserError, printable
from captioning.files import read_text
from captioning.settings import SPLITS

# The caption file of a folder: that of Flickr8k, or of an image folder of Hugging Face.
_FILES_OF_FOLDERS = (CAPTION_FILE, "metadata.jsonl", "metadata.csv")

_BEGINNING = 10_000  # characters, enough for the first line of any such file
_ADVICE = "Name the file of your captions, or run `captioning download` for Flickr8k."


def read_dataset(caption_files: Sequence[Path], images: Path) -> Dataset:
    """Reads the captions of one or several files, and the names of the photographs in the folder
    `images`.

    In a folder, the caption file is found: see `read_caption_file`. If there are several files and
    none names splits inside, a file whose name contains "train", "val" or "test" is that split, as
    with COCO. Missing splits are drawn (see `complete_splits`) from the images that exist. For
    matching image names, see `match_image_names`. Raises FileNotFoundError or UserError, naming
    file and line, if there is nothing to read or the files do not fit together.
    """
    captions, splits = _read_all(caption_files)
    source = ", ".join(map(str, caption_files))
    if not captions:
        raise UserError(f"Expected captions in {source}, got none. Name another file.")
    existing = list_image_names(images)
    existing_names = set(existing)
    stripped = {
        name: _strip_folder(name, images, existing_names)
        for name in chain(captions, *splits.values())
    }
    matches_of_stripped = match_image_names(stripped.values(), existing)
    matches = {name: matches_of_stripped[stripped[name]] for name in stripped}
    matched: Captions = {}
    for name, image_captions in captions.items():
        matched.setdefault(matches[name], []).extend(image_captions)
    splits = {
        split: list(dict.fromkeys(matches[name] for name in names))
        for split, names in splits.items()
    }
    drawable = [name for name in matched if name in existing_names]
    if not drawable:
        raise UserError(_describe_mismatch(images, list(captions), existing))
    if "train" in splits and splits.keys() < set(SPLITS):  # the others are drawn from it
        splits["train"] = [name for name in splits["train"] if name in existing_names]
    return Dataset(images, matched, complete_splits(splits, drawable, source))


def read_caption_file(path: Path) -> tuple[Captions, Splits]:
    """Returns the captions of a file, or of the caption file in a folder, as written, and the
    splits that it names. Raises FileNotFoundError if the file is missing, and UserError, naming the
    lines or entries, for a file in another format."""
    if path.is_dir():
        files = [path / name for name in _FILES_OF_FOLDERS]
        path = next(filter(Path.exists, files), files[0])
    if _is_parquet(path):
        return _group(read_parquet(path))
    beginning = read_text(path, _ADVICE, _BEGINNING)
    _, header = find_header(beginning)
    if beginning.lstrip().startswith("{"):
        return _group(read_json(read_text(path, _ADVICE), path))
    if CAPTION_LINE.fullmatch(header):
        return read_captions(path), read_splits(path.parent)
    if find_delimiter(header):
        return _group(read_table(read_text(path, _ADVICE), path))
    raise UserError(
        f"{path}, line 1: Expected a header such as image,caption, or lines such as image.jpg#0, a "
        "tab and a caption, or JSON Lines, or JSON in the layout of COCO's captions or Karpathy's "
        f"splits, or Parquet, got {header[:80]!r}. Add the header, or name another file."
    )


def match_image_names(names: Iterable[str], images: Iterable[str]) -> dict[str, str]:
    """Returns name in a caption file -> name of the image in the folder, with "/" between its
    parts.

    An image of exactly that name comes first, also as `captioning.errors.printable` writes it.
    Otherwise a name matches the only image with the same file name in any folder, or with the same
    name except for the case of letters, the Unicode form of accents (NFC, NFD), or an ending that
    the caption file leaves out; unless the image also fits another name of the caption file. A name
    without a match stays as it is.
    """
    images = dict.fromkeys(images)
    as_written = {printable(image): image for image in images} | {image: image for image in images}
    paths = {  # with both kinds of slashes
        name: as_written.get(name) or PureWindowsPath(name).as_posix() for name in names
    }
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
    fits = Counter(matches.values())
    return {
        name: matches[path] if fits[matches[path]] == 1 else path for name, path in paths.items()
    }


def similar_images(names: Iterable[str], images: Iterable[str]) -> dict[str, str]:
    """Returns name -> an image whose file name differs only in case, accents or ending, for each
    name that has one."""
    by_stem = {_folded_file_stem(image): image for image in images}
    stems = {name: _folded_file_stem(name) for name in names}
    return {name: by_stem[stem] for name, stem in stems.items() if stem in by_stem}


def _strip_folder(name: str, images: Path, existing_names: Container[str]) -> str:
    """Returns 1/a.jpg, an image in the folder photos, for photos/1/a.jpg, as `caption photos`
    writes it; any other name as it is."""
    stripped = PureWindowsPath(name).as_posix().removeprefix(f"{images.as_posix()}/")
    return stripped if name not in existing_names and stripped in existing_names else name


def _read_all(paths: Sequence[Path]) -> tuple[Captions, Splits]:
    """Returns the captions of all files as written, and the splits named in the files or by their
    names."""
    captions: Captions = {}
    splits: Splits = {}
    for path in paths:
        file_captions, file_splits = read_caption_file(path)
        split = _split_in_name(path) if len(paths) > 1 else None
        if split and not file_splits:
            file_splits = {split: list(file_captions)}
        if captions and bool(splits) != bool(file_splits):
            raise UserError(
                f"{path}: Expected splits in all of the {len(paths)} caption files or in none, got "
                'both. Call each file after its split, such as "captions_train.csv".'
            )
        for name, image_captions in file_captions.items():
            captions.setdefault(name, []).extend(image_captions)
        for split, names in file_splits.items():
            splits.setdefault(split, []).extend(names)
    return captions, splits


def _group(rows: Iterable[Row]) -> tuple[Captions, Splits]:
    """Returns captions and splits by image."""
    captions: Captions = {}
    splits: dict[str, dict[str, None]] = {}
    for image_name, caption, split in rows:
        captions.setdefault(image_name, []).append(caption)
        if split:
            splits.setdefault(split, {})[image_name] = None
    return captions, {split: list(names) for split, names in splits.items()}


def _is_parquet(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _split_in_name(path: Path) -> str | None:
    words = re.findall("[a-z]+", path.stem.lower())
    return next(filter(None, map(parse_split, words)), None)


def _describe_mismatch(folder: Path, names: Sequence[str], existing: Sequence[str]) -> str:
    """Returns the message for captions of other images than those in the folder."""
    similar = similar_images(names, existing)
    if similar:
        name, image = next(iter(similar.items()))
        advice = "They differ in the ending, or several names are alike: correct the captions."
    else:
        name, image = names[0], existing[0]
        advice = "Name the folder of the images that the captions describe."
    return (
        f"Expected an image of the {len(names)} captioned ones in {folder}, such as {name!r}, got "
        f"{image!r}. {advice}"
    )


def _file_name(path: str) -> str:
    return PurePosixPath(path).name


def _folded_path(path: str) -> str:
    """Returns the same text for paths that differ only in the case of letters or the Unicode form
    of accents."""
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
