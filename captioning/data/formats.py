"""Reads captions in any of the common formats, together with a folder of images, as a data set.

The format is recognised by the content of a file, never by its name: Flickr8k's lines, a table with
a header, or the JSON of COCO or Karpathy.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from captioning.data.dataset import Captions, Dataset, Splits, list_image_names
from captioning.data.flickr8k import CAPTION_FILE, CAPTION_LINE, read_captions, read_splits
from captioning.data.image_names import match_image_names, similar_images
from captioning.data.json_formats import read_json
from captioning.data.splits import complete_splits, parse_split
from captioning.data.table_format import find_delimiter, read_table
from captioning.files import read_text
from captioning.settings import SPLITS, SplitSettings

_BEGINNING = 10_000  # characters, enough for the first line of any such file


def read_dataset(
    caption_files: Sequence[Path], images: Path, shares: SplitSettings = SplitSettings()
) -> Dataset:
    """The captions of one or several files, and the photographs in the folder `images`.

    A folder among `caption_files` has Flickr8k's layout. If there are several files and none names
    splits inside, a file whose name contains "train", "val" or "test" is that split, as with COCO.
    A split that nothing names is drawn (see `complete_splits`) from the images that exist. How
    image names are matched: see `match_image_names`. Raises FileNotFoundError or ValueError, naming
    file and line, if there is nothing to read or it does not fit together.
    """
    captions, splits = _read_all(caption_files)
    existing = list_image_names(images)
    split_names = (name for names in splits.values() for name in names)
    matches = match_image_names([*captions, *split_names], existing)
    matched: Captions = {}
    for name, image_captions in captions.items():
        matched.setdefault(matches[name], []).extend(image_captions)
    splits = {
        split: list(dict.fromkeys(matches[name] for name in names))
        for split, names in splits.items()
    }
    existing_names = set(existing)
    drawable = [name for name in matched if name in existing_names]
    if not drawable:
        raise ValueError(_no_images(images, list(captions), existing))
    if "train" in splits and splits.keys() < set(SPLITS):  # the others are drawn from it
        splits["train"] = [name for name in splits["train"] if name in existing_names]
    return Dataset(images, matched, complete_splits(splits, drawable, shares))


def _read_all(paths: Sequence[Path]) -> tuple[Captions, Splits]:
    """The captions of all files as written, and the splits that the files or their names give."""
    captions: Captions = {}
    splits: Splits = {}
    for path in paths:
        file_captions, file_splits = _read(path)
        split = _split_in_name(path) if len(paths) > 1 else None
        if split and not file_splits:
            file_splits = {split: list(file_captions)}
        if captions and bool(splits) != bool(file_splits):
            raise ValueError(
                f"{path}: Expected splits in all of the {len(paths)} caption files or in none, got "
                'both. Call each file after its split, such as "captions_train.csv".'
            )
        for name, image_captions in file_captions.items():
            captions.setdefault(name, []).extend(image_captions)
        for split, names in file_splits.items():
            splits.setdefault(split, []).extend(names)
    return captions, splits


def _read(path: Path) -> tuple[Captions, Splits]:
    """The captions of a file as written, and the splits that it names."""
    if path.is_dir():
        path = path / CAPTION_FILE
    advice = "Name the file of your captions, or run `python -m captioning download` for Flickr8k."
    beginning = read_text(path, advice, _BEGINNING)
    first_line = beginning.partition("\n")[0]
    if beginning.lstrip().startswith("{"):
        return _group(read_json(path))
    if CAPTION_LINE.fullmatch(first_line):
        return read_captions(path), read_splits(path.parent)
    if find_delimiter(first_line):
        return _group(read_table(path))
    raise ValueError(
        f"{path}, line 1: Expected a header such as image,caption, or lines such as image.jpg#0, a "
        "tab and a caption, or JSON in the layout of COCO's captions or Karpathy's splits, got "
        f"{first_line[:80]!r}. Add the header, or name another file."
    )


def _group(entries: Iterable[tuple[str, str, str | None]]) -> tuple[Captions, Splits]:
    """Captions and splits by image, from image name, caption and split of each caption."""
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


def _no_images(folder: Path, names: Sequence[str], existing: Sequence[str]) -> str:
    similar = similar_images(names, existing)
    if similar:
        name, image = next(iter(similar.items()))
        advice = "They differ in the ending, or several names are alike: correct the captions."
    else:
        name, image = next(iter(names), "captions"), existing[0]
        advice = "Name the folder of the images that the captions describe."
    return (
        f"Expected an image of the {len(names)} captioned ones in {folder}, such as {name!r}, got "
        f"{image!r}. {advice}"
    )
