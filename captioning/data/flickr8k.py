"""Flickr8k (Hodosh, Young and Hockenmaier, "Framing Image Description as a Ranking Task", 2013):
downloads and unpacks its archives, and reads its caption file and lists of images.

Flickr30k's captions have the same layout.
"""

import hashlib
import re
import sys
from pathlib import Path

from captioning.data.caption_tables import Row, parse_rows
from captioning.data.dataset import Captions, Splits
from captioning.data.download import MAX_UNPACKED_BYTES, download, unpack
from captioning.errors import UserError
from captioning.files import read_text, write_atomically
from captioning.paths import Paths

RELEASE = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
IMAGE_ARCHIVE = "Flickr8k_Dataset.zip"  # 1.1 GB: Flicker8k_Dataset/*.jpg
TEXT_ARCHIVE = "Flickr8k_text.zip"  # 2.2 MB: TEXT_FILES
CAPTION_FILE = "Flickr8k.token.txt"
SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "development": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
TEXT_FILES = (
    CAPTION_FILE, *SPLIT_FILES.values(), "Flickr8k.lemma.token.txt", "ExpertAnnotations.txt",
    "CrowdFlowerAnnotations.txt", "readme.txt",
)  # fmt: skip
CAPTION_LINE = re.compile(r"(.+?)#\d+\t(.*)")  # image name, "#", number, tab, caption

# Of the official archives. The MD5 is the one that torchvision for R compares; nobody publishes a
# SHA-256 of the images.
DIGESTS = {
    TEXT_ARCHIVE: ("sha256", "4992ddc8110e9aa49da5bf698522b0c8f11c448814a488584ee6bf040e5137e7"),
    IMAGE_ARCHIVE: ("md5", "f18a1e2920de5bd84dae7cf08ec78978"),
}
MAX_TEXT_BYTES = 10**8  # the official texts take 6 MB

_ADVICE = "Run the step that unpacks it: `captioning download`."
_FILE_COUNT = ".unpacked"  # a file with the number of files in a complete folder


def download_flickr8k(paths: Paths, source: Path | None = None) -> None:
    """Fills `paths.images` and `paths.texts`.

    `source` is one of the two archives, or a folder that contains them; a missing archive is
    downloaded. Unpacks only Flickr8k's images and text files, does not touch a complete folder, and
    resumes after an interruption. Another archive than the official one is refused if it was
    downloaded, and reported on stderr if you name it as the source. Raises FileNotFoundError if the
    source has neither archive, UserError for a damaged or another archive and ConnectionError if a
    download fails.
    """
    if source is not None and not any(
        path.is_file() and path.name in (IMAGE_ARCHIVE, TEXT_ARCHIVE)
        for path in (source, source / IMAGE_ARCHIVE, source / TEXT_ARCHIVE)
    ):
        raise FileNotFoundError(
            f"There is no archive in {source}. Name a folder that contains {IMAGE_ARCHIVE} and "
            f"{TEXT_ARCHIVE}, or one of them, or no folder in order to download both."
        )
    for archive_name, folder, should_unpack, max_bytes in (
        (TEXT_ARCHIVE, paths.texts, _is_text, MAX_TEXT_BYTES),
        (IMAGE_ARCHIVE, paths.images, _is_image, MAX_UNPACKED_BYTES),
    ):
        if not _is_complete(folder):
            archive_path = _find_or_download(archive_name, paths.root, source)
            if not unpack(archive_path, folder, should_unpack, max_bytes):
                raise UserError(
                    f"Expected Flickr8k's files in {archive_path}, got others. Delete the archive "
                    "and download it again."
                )
            with write_atomically(folder / _FILE_COUNT, "w") as file:
                file.write(str(len(_visible_files(folder))))


def read_captions(path: Path) -> Captions:
    """Reads captions in Flickr8k's format, one a line: "image.jpg#0", a tab, the caption. Raises
    FileNotFoundError if the file is missing, UserError, naming the lines, for another format."""
    lines = read_text(path, _ADVICE).split("\n")

    def parse(numbered_line: tuple[int, str]) -> list[Row]:
        number, line = numbered_line
        match = CAPTION_LINE.fullmatch(line)
        if match is None:
            raise UserError(
                f'{path}, line {number}: Expected "image.jpg#0", a tab and a caption, got '
                f"{line[:80]!r}. Unpack the archive again, or correct the line."
            )
        return [(*match.groups(), None)]

    captions: Captions = {}
    numbered_lines = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    for image_name, caption, _ in parse_rows(numbered_lines, parse):
        captions.setdefault(image_name, []).append(caption)
    return captions


def read_splits(folder: Path) -> Splits:
    """Returns split -> image names, in the order of Flickr8k's lists, for the lists in `folder`."""
    return {
        split: _lines(folder / name)
        for split, name in SPLIT_FILES.items()
        if (folder / name).exists()
    }


def _is_text(folders: tuple[str, ...], name: str) -> bool:
    return not folders and name in TEXT_FILES


def _is_image(folders: tuple[str, ...], name: str) -> bool:
    is_visible = not name.startswith(".")  # macOS adds hidden files
    return folders == ("Flicker8k_Dataset",) and name.lower().endswith(".jpg") and is_visible


def _find_or_download(archive_name: str, root: Path, source: Path | None) -> Path:
    for path in [] if source is None else [source, source / archive_name]:
        if path.name == archive_name and path.is_file():
            if difference := _difference_from_official(path):
                print(f"{difference} Its images and texts are unpacked.", file=sys.stderr)
            return path
    path = download(f"{RELEASE}/{archive_name}", root / archive_name)
    if difference := _difference_from_official(path):
        raise UserError(
            f"{difference} Delete it and download it again or, if you trust it, name it: "
            f"`captioning download --source {path.parent}`."
        )
    return path


def _difference_from_official(path: Path) -> str | None:
    algorithm, expected = DIGESTS[path.name]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).hexdigest()
    if digest == expected:
        return None
    return f"Expected the official archive in {path}, {algorithm} {expected}, got {digest}."


def _is_complete(folder: Path) -> bool:
    try:
        count = int((folder / _FILE_COUNT).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # not unpacked to the end, or damaged
        return False
    return len(_visible_files(folder)) >= count


def _visible_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _lines(path: Path) -> list[str]:
    return [line.rstrip() for line in read_text(path, _ADVICE).split("\n") if line.strip()]
