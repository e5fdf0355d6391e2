"""Flickr8k: its archives in, its layout on disk out; and that layout in, captions and splits out.

Hodosh, Young and Hockenmaier, "Framing Image Description as a Ranking Task" (2013). Flickr30k's
captions have the same layout.
"""

import re
from pathlib import Path

from captioning.data.dataset import Captions, Splits
from captioning.data.download import download, unpack
from captioning.files import read_text, write_atomically
from captioning.paths import Paths

RELEASE = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
IMAGE_ARCHIVE = "Flickr8k_Dataset.zip"  # 1.1 GB, unpacks to Flicker8k_Dataset/
TEXT_ARCHIVE = "Flickr8k_text.zip"  # 2.2 MB, unpacks to single files
CAPTION_FILE = "Flickr8k.token.txt"
SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "development": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}

_FILE_COUNT = ".unpacked"  # how many files there are when all are there

CAPTION_LINE = re.compile(r"([^\t]+)#\d+\t(.*)")  # image name, "#", number, tab, caption


def download_flickr8k(files: Paths, source: Path | None = None) -> None:
    """Fills `files.images` and `files.texts`.

    `source` is a folder that holds the two archives, or one of the archives; what it does not hold
    is downloaded. Nothing is done for a folder that is complete, and a call that was stopped goes
    on where it stopped. Raises FileNotFoundError if the source holds neither, ValueError for a
    damaged archive, ConnectionError if a download fails.
    """
    if source is not None and not any(
        path.is_file() and path.name in (IMAGE_ARCHIVE, TEXT_ARCHIVE)
        for path in (source, source / IMAGE_ARCHIVE, source / TEXT_ARCHIVE)
    ):
        raise FileNotFoundError(
            f"There is no archive in {source}. Name a folder that holds {IMAGE_ARCHIVE} and "
            f"{TEXT_ARCHIVE}, one of these archives, or nothing in order to download them."
        )
    for archive_name, folder, unpack_to in (
        (TEXT_ARCHIVE, files.texts, files.texts),
        (IMAGE_ARCHIVE, files.images, files.root),
    ):
        if not _is_complete(folder):
            unpack(_archive(archive_name, files.root, source), unpack_to)
            count = len(_files(folder))
            with write_atomically(folder / _FILE_COUNT, "w") as file:
                file.write(str(count))


def read_captions(path: Path) -> Captions:
    """A caption file in the official format, a line each: "image.jpg#0", a tab, the caption."""
    captions: Captions = {}
    for number, line in enumerate(_lines(path), start=1):
        match = CAPTION_LINE.fullmatch(line)
        if match is None:
            raise ValueError(
                f'{path}, line {number}: wanted "image.jpg#0", a tab and a caption. '
                f"Received: {line[:80]!r}. Unpack the archive again, or mend the line."
            )
        image_name, caption = match.groups()
        captions.setdefault(image_name, []).append(caption)
    return captions


def read_splits(folder: Path) -> Splits:
    """The official lists that are in `folder`: split -> image names, in the order of the files."""
    return {
        split: _lines(folder / name)
        for split, name in SPLIT_FILES.items()
        if (folder / name).exists()
    }


def _archive(archive_name: str, root: Path, source: Path | None) -> Path:
    for path in [] if source is None else [source, source / archive_name]:
        if path.name == archive_name and path.is_file():
            return path
    return download(f"{RELEASE}/{archive_name}", root / archive_name)


def _is_complete(folder: Path) -> bool:
    try:
        return len(_files(folder)) >= int((folder / _FILE_COUNT).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # nothing, or half a number, was written
        return False


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _lines(path: Path) -> list[str]:
    text = read_text(path, "The step before makes it: `python -m captioning download`.")
    return [line for line in text.split("\n") if line]
