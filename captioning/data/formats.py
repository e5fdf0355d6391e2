"""Reads a caption file in any of the common formats: captions and splits, by image name.

The format is recognised by the content of a file, never by its name: Flickr8k's lines (see
`captioning.data.flickr8k`), a table (`captioning.data.caption_tables`), or JSON
(`captioning.data.caption_json`).
"""

from collections.abc import Iterable
from pathlib import Path

from captioning.data.caption_json import read_json
from captioning.data.caption_rows import Row
from captioning.data.caption_tables import find_delimiter, find_header, read_table
from captioning.data.dataset import Captions, Splits
from captioning.data.flickr8k import CAPTION_FILE, CAPTION_LINE, read_captions, read_splits
from captioning.errors import UserError
from captioning.files import read_text

# The caption file of a folder: that of Flickr8k, or of an image folder of Hugging Face.
_FILES_OF_FOLDERS = (CAPTION_FILE, "metadata.jsonl", "metadata.csv")

_BEGINNING = 10_000  # characters, enough for the first line of any such file
_ADVICE = "Name the file of your captions, or run `python -m captioning download` for Flickr8k."


def read_caption_file(path: Path) -> tuple[Captions, Splits]:
    """Returns the captions of a file, or of the caption file in a folder, as written, and the
    splits that it names. Raises FileNotFoundError if the file is missing, and UserError, naming the
    lines or entries, for a file in another format."""
    if path.is_dir():
        files = [path / name for name in _FILES_OF_FOLDERS]
        path = next(filter(Path.exists, files), files[0])
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
        f"splits, got {header[:80]!r}. Add the header, or name another file."
    )


def _group(rows: Iterable[Row]) -> tuple[Captions, Splits]:
    """Returns captions and splits by image."""
    captions: Captions = {}
    splits: dict[str, dict[str, None]] = {}
    for image_name, caption, split in rows:
        captions.setdefault(image_name, []).append(caption)
        if split:
            splits.setdefault(split, {})[image_name] = None
    return captions, {split: list(names) for split, names in splits.items()}
