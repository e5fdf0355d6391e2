"""Archives: fetched over an unsteady line, and unpacked without trusting them.

In: an address, or a zip file. Out: a whole file, or a folder of whole files. Both functions may
be stopped and called again: they go on from where they were.
Not about: which archives there are and what is in them.
"""

import re
import shutil
import stat
import time
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path, PureWindowsPath
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from captioning.files import write_atomically

PAUSES = (0, 1, 4, 16)  # seconds before each attempt: a cut line is often back within a minute
TIMEOUT = 60  # seconds of silence after which a connection counts as cut
BLOCK_BYTES = 1 << 16  # small, because a cut connection loses the block under way
CUT_CONNECTION = (URLError, HTTPException, ConnectionError, TimeoutError, SSLError)

USUAL_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# The largest photograph archives in common use unpack to about 19 GB; beyond, suspect a zip bomb.
MAX_UNPACKED_BYTES = 20 * 10**9


def download(url: str, path: Path) -> Path:
    """Fetch `url` into the file `path` and return `path`; a file already there is left as it is.

    What has come lies in `path`.part until all of it is there, and `path`.part.version holds the
    server's ETag or date of it. With both, the next attempt (or call) asks for the rest only; the
    server starts anew if its file has changed since. Raises ConnectionError where the server
    refuses or all attempts fail.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part_path = path.with_name(f"{path.name}.part")
    version_path = path.with_name(f"{path.name}.part.version")
    for attempt, pause in enumerate(PAUSES, start=1):
        time.sleep(pause)
        try:
            _fetch(url, part_path, version_path)
            break
        except CUT_CONNECTION as error:
            code = getattr(error, "code", 500)  # only an answer of the server has one
            refused = code < 500 and code not in (408, 429)  # but not "too slow" or "too often"
            if refused or attempt == len(PAUSES):
                raise ConnectionError(
                    f"wanted the file {url}, but attempt {attempt} ended with: {error}. Check the "
                    "address and the line and call again (what has come is kept), or download "
                    f"the file by hand and save it as {path}."
                ) from error
    part_path.replace(path)
    version_path.unlink(missing_ok=True)
    return path


def _fetch(url: str, part_path: Path, version_path: Path) -> None:
    """Complete `part_path` over one connection, or raise one of CUT_CONNECTION."""
    version = version_path.read_text(encoding="utf-8") if version_path.exists() else ""
    # A part of unknown version could be the beginning of another file, so it is not used.
    start = part_path.stat().st_size if version and part_path.exists() else 0
    headers = {"Range": f"bytes={start}-", "If-Range": version} if start else {}
    with _open(Request(url, headers=headers)) as response:
        begin, total = _extent(response)
        new_version = _version(response)
        if begin not in (0, start) or (begin and new_version not in ("", version)):
            version_path.unlink(missing_ok=True)  # makes the next attempt start anew
            raise ConnectionError(f"the server's file no longer fits the {start:,} bytes here")
        if response.status == 416:  # nothing follows: the part was complete
            return
        bar = tqdm(total=total, initial=begin, unit="B", unit_scale=True, desc=part_path.stem)
        with bar, part_path.open("ab" if begin else "wb") as part:
            if not begin:
                version_path.write_text(new_version, encoding="utf-8")
            while block := response.read(BLOCK_BYTES):
                bar.update(part.write(block))
            size = part.tell()
    if total is not None and size != total:
        raise ConnectionError(f"{size:,} bytes came of the {total:,} announced")


def _open(request: Request):
    try:
        return urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416:  # "no such range" still tells the length of the file
            return error
        raise


def _extent(response) -> tuple[int, int | None]:
    """Where in the file the answer begins, and the length of the whole file where announced."""
    if response.status not in (206, 416):
        length = response.headers.get("Content-Length")
        return 0, int(length) if length else None
    content_range = response.headers.get("Content-Range", "")  # "bytes 5-9/10", or "bytes */10"
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/([1-9]\d*)", content_range)
    if match is None:
        return -1, None  # fits no part
    return int(match[1] or match[2]), int(match[2])


def _version(response) -> str:
    etag = response.headers.get("ETag", "")
    # A weak ETag promises the same meaning, not the same bytes.
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def unpack(archive_path: Path, folder: Path) -> list[Path]:
    """Unpack the zip `archive_path` below `folder`; return the paths of its files.

    Every member is checked before the first is written. A file of the right size already there is
    kept. Raises ValueError for an archive that is no zip, is damaged or would do harm.
    """
    with _open_zip(archive_path) as archive:
        members = {}
        for member in archive.infolist():
            parts = _checked_parts(member, archive_path)
            if not member.is_dir() and not _is_litter(parts):
                members[folder.joinpath(*parts)] = member
        unpacked_bytes = sum(member.file_size for member in members.values())
        if unpacked_bytes > MAX_UNPACKED_BYTES:
            raise ValueError(
                f"{archive_path} would unpack to {unpacked_bytes:,} bytes, more than the "
                f"{MAX_UNPACKED_BYTES:,} allowed. If you trust it, unpack it by hand."
            )
        for path, member in tqdm(members.items(), desc=archive_path.name, unit="file"):
            if not (path.is_file() and path.stat().st_size == member.file_size):
                _write_member(archive, member, path)
    return list(members)


def _open_zip(path: Path) -> zipfile.ZipFile:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}: download it, or pass another path")
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(
            f"{path} is not a zip archive, or not a whole one ({error}). Delete it and fetch it "
            "again."
        ) from error


def _checked_parts(member: zipfile.ZipInfo, archive_path: Path) -> tuple[str, ...]:
    """The folders and the file name of a member, which may only be a plain file or folder."""
    name = PureWindowsPath(member.filename)  # knows drives and both slashes, on every system
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the archive does not say
    objections = {
        "lies outside the folder": name.anchor or ".." in name.parts,
        "has no name": not (name.parts or member.is_dir()),
        "is a link or a device": kind not in (0, stat.S_IFREG, stat.S_IFDIR),
        "is encrypted": member.flag_bits & 1,
        "is compressed in an unusual way": member.compress_type not in USUAL_COMPRESSION,
    }
    for objection in (words for words, holds in objections.items() if holds):
        raise ValueError(
            f"{archive_path}: the member {member.filename!r} {objection}. Nothing was unpacked. "
            "If you trust the archive, unpack it by hand."
        )
    return name.parts


def _is_litter(parts: tuple[str, ...]) -> bool:
    """Whether it is a file that macOS adds to archives."""
    return "__MACOSX" in parts or parts[-1] == ".DS_Store" or parts[-1].startswith("._")


def _write_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    try:
        with archive.open(member) as source, write_atomically(path) as target:
            shutil.copyfileobj(source, target)  # at its end, zipfile compares the CRC
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(
            f"{archive.filename}: the member {member.filename!r} is damaged ({error}). Delete "
            "the archive, download it again and unpack it again: whole files are kept."
        ) from error
