"""Captions in any of the common formats in, a data set out.

A format is recognised by what a file holds, never by its name: Flickr8k's lines, a table with a
header, COCO's or Karpathy's JSON.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from captioning.data.dataset import Captions, Dataset, Splits, list_image_names
from captioning.data.flickr8k import CAPTION_FILE, CAPTION_LINE, read_captions, read_splits
from captioning.data.json_formats import read_json
from captioning.data.splits import complete_splits, parse_split
from captioning.data.table_format import delimiter_of, read_table
from captioning.files import read_text
from captioning.settings import SPLITS, SplitSettings

_BEGINNING = 10_000  # characters, enough for the first line of any such file


def read_dataset(
    caption_files: Sequence[Path], images: Path, shares: SplitSettings = SplitSettings()
) -> Dataset:
    """The captions of one file, or of several together, and the photographs in the folder `images`.

    A folder among `caption_files` is laid out as Flickr8k's. Of several files that name no split, a
    file whose name says "train", "val" or "test" is that split, as with COCO. What no file names is
    drawn (see `complete_splits`) from the images that exist. An image that is not where the file
    says is looked for by its file name in all folders below `images`. Raises FileNotFoundError or
    ValueError, naming file and line, where there is nothing to read or it does not fit together.
    """
    captions, named = _read_all(caption_files)
    existing = list_image_names(images)
    found = _find({*captions, *(name for names in named.values() for name in names)}, existing)
    located: Captions = {}
    for name, of_image in captions.items():
        located.setdefault(found[name], []).extend(of_image)
    there = set(existing)
    drawable = [name for name in located if name in there]
    if not drawable:
        raise ValueError(
            f"None of the {len(captions)} captioned images is in {images}. Wanted: "
            f"{next(iter(captions), 'captions')!r}. Received: {existing[0]!r}. Name the folder of "
            "the images that the captions are about."
        )
    splits = {split: list(dict.fromkeys(map(found.get, names))) for split, names in named.items()}
    if "train" in splits and splits.keys() < set(SPLITS):  # others are drawn from it
        splits["train"] = [name for name in splits["train"] if name in there]
    return Dataset(images, located, complete_splits(splits, drawable, shares))


def _read_all(paths: Sequence[Path]) -> tuple[Captions, Splits]:
    """The captions of all files as written, and the splits that they or their names tell."""
    captions: Captions = {}
    splits: Splits = {}
    for path in paths:
        of_file, splits_of_file = _read(path)
        split = _split_in_name(path) if len(paths) > 1 else None
        if split and not splits_of_file:
            splits_of_file = {split: list(of_file)}
        if captions and bool(splits) != bool(splits_of_file):
            raise ValueError(
                f"{path}: wanted splits named in all of the {len(paths)} caption files or in none. "
                'Call each file after its split, such as "captions_train.csv".'
            )
        for name, of_image in of_file.items():
            captions.setdefault(name, []).extend(of_image)
        for split, names in splits_of_file.items():
            splits.setdefault(split, []).extend(names)
    return captions, splits


def _read(path: Path) -> tuple[Captions, Splits]:
    """Captions as written, and the splits that the file names."""
    if path.is_dir():
        path = path / CAPTION_FILE
    beginning = read_text(
        path,
        "Name the file of your captions, or fetch Flickr8k: `python -m captioning download`.",
        _BEGINNING,
    )
    first_line = beginning.partition("\n")[0]
    if beginning.lstrip().startswith("{"):
        return _gather(read_json(path))
    if CAPTION_LINE.fullmatch(first_line):
        return read_captions(path), read_splits(path.parent)
    if delimiter_of(first_line):
        return _gather(read_table(path))
    raise ValueError(
        f"{path}, line 1: wanted a header such as image,caption, or lines such as image.jpg#0, a "
        "tab and a caption, or JSON in the layout of COCO's captions or Karpathy's splits. "
        f"Received: {first_line[:80]!r}. Add the header, or name another file."
    )


def _gather(entries: Iterable[tuple[str, str, str | None]]) -> tuple[Captions, Splits]:
    captions: Captions = {}
    splits: dict[str, dict[str, None]] = {}
    for image_name, caption, split in entries:
        captions.setdefault(image_name, []).append(caption)
        if split:
            splits.setdefault(split, {})[image_name] = None
    return captions, {split: list(names) for split, names in splits.items()}


def _split_in_name(path: Path) -> str | None:
    words = re.findall("[a-z]+", path.stem.lower())
    return next(filter(None, map(parse_split, words)), None)


def _find(wanted: Iterable[str], existing: Iterable[str]) -> dict[str, str]:
    """Name in a caption file -> name of the image: that of the only image whose file is called so,
    if no other image of that file name is wanted; else the name as it is."""
    paths = {name: PureWindowsPath(name).as_posix() for name in wanted}  # knows both slashes
    times_wanted = Counter(map(_file_name, paths.values()))
    times_there = Counter(map(_file_name, existing))
    only = {_file_name(name): name for name in existing if times_there[_file_name(name)] == 1}
    return {
        name: only.get(_file_name(path), path) if times_wanted[_file_name(path)] == 1 else path
        for name, path in paths.items()
    }


def _file_name(image_name: str) -> str:
    return PurePosixPath(image_name).name
