"""Downloads a file over an unsteady connection, and unpacks a zip archive without trusting it.

Both functions may be stopped and called again: they resume.
"""

import re
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PureWindowsPath
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from captioning.errors import UserError
from captioning.files import name_in_errors, write_atomically

PAUSES = (0, 1, 4, 16)  # seconds before each attempt: most connections are back within a minute
TIMEOUT = 60  # seconds without data after which a connection counts as broken
BLOCK_BYTES = 1 << 16  # small, because a broken connection loses the current block
BROKEN_CONNECTION = (URLError, HTTPException, ConnectionError, TimeoutError, SSLError)

USUAL_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# The largest archives of photographs in common use unpack to about 19 GB. A larger one is suspected
# to be a zip bomb.
MAX_UNPACKED_BYTES = 20 * 10**9
MAX_MEMBERS = 50_000
MAX_DIRECTORY_BYTES = 400 * MAX_MEMBERS  # of the list of members, which is read whole


def download(url: str, path: Path) -> Path:
    """Downloads `url` to the file `path` and returns `path`. Does not touch an existing file.

    Stores the received part in `path`.part until it is complete, and the server's ETag or date of
    the file in `path`.part.version. With both, the next attempt or call requests only the rest; the
    server sends the whole file if it has changed since. Raises ConnectionError if the server
    refuses or all attempts fail.
    """
    part_path = path.with_name(f"{path.name}.part")
    version_path = path.with_name(f"{path.name}.part.version")
    if path.exists():
        version_path.unlink(missing_ok=True)  # of a run that was killed at its end
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt, pause in enumerate(PAUSES, start=1):
        time.sleep(pause)
        try:
            _fetch(url, part_path, version_path)
            break
        except BROKEN_CONNECTION as error:
            code = getattr(error, "code", 500)  # only a response of the server has one
            is_refused = code < 500 and code not in (408, 429)  # too slow, too often
            if is_refused or attempt == len(PAUSES):
                raise ConnectionError(
                    f"Expected the file {url}, but attempt {attempt} ended with: {error}. Check "
                    "the address and your connection and try again (the received part is kept), or "
                    f"download the file by hand and save it as {path}."
                ) from error
    part_path.replace(path)
    version_path.unlink(missing_ok=True)
    return path


def _fetch(url: str, part_path: Path, version_path: Path) -> None:
    """Completes `part_path` over a single connection. Raises an error of BROKEN_CONNECTION if that
    breaks."""
    version = version_path.read_text(encoding="utf-8") if version_path.exists() else ""
    # A part of unknown version is not used: it may be the beginning of another file.
    start = part_path.stat().st_size if version and part_path.exists() else 0
    headers = {"Range": f"bytes={start}-", "If-Range": version} if start else {}
    with _open(Request(url, headers=headers)) as response:
        begin, total = _extent(response)
        new_version = _version(response)
        if begin not in (0, start) or (begin and new_version not in ("", version)):
            version_path.unlink(missing_ok=True)  # makes the next attempt start from the beginning
            raise ConnectionError(f"the server's file does not fit the {start:,} bytes received")
        if response.status == 416:  # the part was complete
            return
        bar = tqdm(total=total, initial=begin, unit="B", unit_scale=True, desc=part_path.stem)
        with bar, name_in_errors(part_path), part_path.open("ab" if begin else "wb") as part:
            if not begin:
                version_path.write_text(new_version, encoding="utf-8")
            while block := _read(response):
                bar.update(part.write(block))
            size = part.tell()
    if total is not None and size != total:
        raise ConnectionError(f"{size:,} of the announced {total:,} bytes were received")


def _read(response) -> bytes:
    try:
        return response.read(BLOCK_BYTES)
    except BROKEN_CONNECTION as error:
        raise ConnectionError(str(error)) from error  # without a number: no error of the disk


def _open(request: Request):
    try:
        return urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416:  # "no such range", with the length of the file
            return error
        raise


def _extent(response) -> tuple[int, int | None]:
    """Returns the position in the file at which the response begins, and the length of the whole
    file if the server announces it."""
    if response.status not in (206, 416):
        length = response.headers.get("Content-Length")
        return 0, int(length) if length and length.isdecimal() else None
    content_range = response.headers.get("Content-Range", "")  # "bytes 5-9/10", or "bytes */10"
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/([1-9]\d*)", content_range)
    if match is None:
        return -1, None  # fits no part
    return int(match[1] or match[2]), int(match[2])


def _version(response) -> str:
    etag = response.headers.get("ETag", "")
    # A weak ETag stays the same for equivalent files of different bytes.
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def unpack(
    archive_path: Path,
    folder: Path,
    should_unpack: Callable[[tuple[str, ...], str], bool],
    max_bytes: int = MAX_UNPACKED_BYTES,
) -> list[Path]:
    """Unpacks the members of the zip `archive_path` for which `should_unpack(folders, name)` is
    true into `folder`, without their own folders. Returns the paths of these files.

    Checks every member before it writes the first, so that it never touches anything outside
    `folder`. Keeps files of the right size. Raises FileNotFoundError if the archive is missing,
    UserError if it is not a zip archive, is damaged, unpacks to more than `max_bytes` or would do
    harm.
    """
    with _open_zip(archive_path) as archive:
        count = len(archive.infolist())
        if count > MAX_MEMBERS:
            raise _too_large(archive_path, MAX_MEMBERS, "members", count)
        members = {}
        for member in archive.infolist():
            *folders, name = _checked_parts(member, archive_path) or ("",)
            if not member.is_dir() and should_unpack(tuple(folders), name):
                members[folder / name] = member
        unpacked_bytes = sum(member.file_size for member in members.values())
        if unpacked_bytes > max_bytes:
            raise _too_large(archive_path, max_bytes, "bytes", unpacked_bytes)
        for path, member in tqdm(members.items(), desc=archive_path.name, unit="file"):
            if not (path.is_file() and path.stat().st_size == member.file_size):
                _write_member(archive, member, path)
    return list(members)


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Download it, or name another.")
    with path.open("rb") as file:
        try:
            end = zipfile._EndRecData(file)  # its place and size, before it is read
            directory_bytes = end[zipfile._ECD_SIZE] if end else 0
            if directory_bytes <= MAX_DIRECTORY_BYTES:
                archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise UserError(
                f"Expected a whole zip archive in {path}, got another file or a part ({error}). "
                "Delete the file and download it again."
            ) from error
        if directory_bytes > MAX_DIRECTORY_BYTES:
            raise _too_large(path, MAX_DIRECTORY_BYTES, "bytes of names", directory_bytes)
        yield archive


def _too_large(path: Path, limit: int, unit: str, count: int) -> UserError:
    return UserError(
        f"Expected at most {limit:,} {unit} in {path}, got {count:,}. If you trust the archive, "
        "unpack it by hand."
    )


def _checked_parts(member: zipfile.ZipInfo, archive_path: Path) -> tuple[str, ...]:
    """Returns the folders and the name of a member. Raises UserError unless it is a plain file or
    folder."""
    name = PureWindowsPath(member.filename)  # splits drives and both slashes, on every system
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 if the archive does not state it
    faults = {
        "one outside the folder": name.anchor or ".." in name.parts,
        "one without a name": not (name.parts or member.filename.endswith("/")),
        "a link or a device": kind not in (0, stat.S_IFREG, stat.S_IFDIR),
        "an encrypted one": member.flag_bits & 1,
        "an unusual compression": member.compress_type not in USUAL_COMPRESSION,
    }
    for fault in (fault for fault, is_present in faults.items() if is_present):
        raise UserError(
            f"Expected plain files and folders in {archive_path}, got {fault}: "
            f"{member.filename!r}. Nothing was unpacked. If you trust the archive, unpack it by "
            "hand."
        )
    return name.parts


def _write_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    with write_atomically(path) as target:
        for block in _read_member(archive, member):
            target.write(block)


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yields the content of a member in blocks. At its end, zipfile compares the CRC."""
    try:
        with archive.open(member) as source:
            while block := source.read(BLOCK_BYTES):
                yield block
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        raise UserError(
            f"Expected whole files in {archive.filename}, got a damaged one: {member.filename!r} "
            f"({error}). Delete the archive, download it and unpack it again: whole files are kept."
        ) from error
