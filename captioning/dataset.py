"""Flickr8k on disk: archives in, captions by image name and the three splits out.

Hodosh, Young and Hockenmaier, "Framing Image Description as a Ranking Task" (2013). Captions are
kept as people wrote them; cleaning them is the business of `captioning.text`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from captioning.archives import download, unpack
from captioning.files import write_atomically
from captioning.settings import Files

RELEASE = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
IMAGE_ARCHIVE = "Flickr8k_Dataset.zip"  # 1.1 GB, unpacks to Flicker8k_Dataset/
TEXT_ARCHIVE = "Flickr8k_text.zip"  # 2.2 MB, unpacks to single files
CAPTION_FILE = "Flickr8k.token.txt"
SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "development": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}

Captions = dict[str, list[str]]  # image name -> captions


def obtain(files: Files, source: Path | None = None) -> None:
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
        unpacked = folder / ".unpacked"  # how many files there are when all are there
        if not unpacked.exists() or len(_files(folder)) < int(unpacked.read_text()):
            unpack(_archive(archive_name, files.root, source), unpack_to)
            unpacked.write_text(str(len(_files(folder))))


def read_captions(path: Path) -> Captions:
    """A caption file in the official format: image name, "#", number, tab, caption as written."""
    captions: Captions = {}
    for number, line in enumerate(_lines(path), start=1):
        caption_name, tab, caption = line.partition("\t")
        image_name, sharp, _ = caption_name.rpartition("#")
        if not tab or not sharp:
            raise ValueError(
                f'{path}, line {number}: wanted "image.jpg#0", a tab and a caption. '
                f"Received: {line[:80]!r}. Unpack the archive again, or mend the line."
            )
        captions.setdefault(image_name, []).append(caption)
    return captions


def read_splits(folder: Path) -> dict[str, list[str]]:
    """The official lists in `folder`: split name -> image names, in the order of the files."""
    return {split: _lines(folder / name) for split, name in SPLIT_FILES.items()}


def write_descriptions(path: Path, captions: Mapping[str, Sequence[str]]) -> None:
    """Writes cleaned captions, a line each: image name, tab, caption."""
    with write_atomically(path, "w") as file:
        for image_name, image_captions in captions.items():
            for caption in image_captions:
                file.write(f"{image_name}\t{caption}\n")


def read_descriptions(path: Path) -> Captions:
    """Reads what `write_descriptions` wrote."""
    captions: Captions = {}
    for number, line in enumerate(_lines(path, step="check"), start=1):
        image_name, tab, caption = line.partition("\t")
        if not tab:
            raise ValueError(
                f"{path}, line {number}: wanted an image name, a tab and a caption. "
                f"Received: {line[:80]!r}. Delete the file and clean the captions again."
            )
        captions.setdefault(image_name, []).append(caption)
    return captions


def select(by_image: Mapping, image_names: Sequence[str]) -> dict:
    """The entries of those images that have one, in the order of `image_names`."""
    return {name: by_image[name] for name in image_names if name in by_image}


def _archive(archive_name: str, root: Path, source: Path | None) -> Path:
    for path in [] if source is None else [source, source / archive_name]:
        if path.name == archive_name and path.is_file():
            return path
    return download(f"{RELEASE}/{archive_name}", root / archive_name)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _lines(path: Path, step: str = "download") -> list[str]:
    """The lines of a text file that `step` makes."""
    if not path.exists():
        raise FileNotFoundError(
            f"There is no {path}. The step before makes it: `python -m captioning {step}`."
        )
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} should be text in UTF-8, but: {error}. Make it anew.") from error
