import os
import stat
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from captioning.data import download as module
from captioning.data.download import download, unpack

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes, several blocks
HALF = len(CONTENT) // 2


class Site(ThreadingHTTPServer):
    """Serves one file, with configurable faults; `requests` has the headers of each request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.version_header, self.version = "ETag", '"one"'
        self.cuts = []  # bytes of the body after which each future request is cut
        self.statuses = []  # the statuses that refuse future requests
        self.supports_ranges = self.supports_if_range = True
        self.announces_length = True
        self.missing = 0  # bytes announced but never sent
        self.hangs = False  # whether the connection stays open after a cut
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_port}/file.zip"

    @property
    def ranges(self):
        return [headers.get("Range") for headers in self.requests]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        site = self.server
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file.zip")
            self.end_headers()
            return
        site.requests.append(dict(self.headers))
        if site.statuses:
            self.send_error(site.statuses.pop(0))
            return
        start, total = 0, len(site.content) + site.missing
        same = not site.supports_if_range or self.headers.get("If-Range") == site.version
        if "Range" in self.headers and site.supports_ranges and same:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if start and start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
        elif start:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        if site.version:
            self.send_header(site.version_header, site.version)
        body = b"no such range" if start and start >= total else site.content[start:]
        if site.announces_length:
            self.send_header("Content-Length", str(len(body) + site.missing))
        self.end_headers()
        cut = site.cuts.pop(0) if site.cuts else None
        self.wfile.write(body[:cut])
        if site.hangs and cut is not None:
            time.sleep(0.5)

    def log_message(self, *_):
        pass


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0, 0, 0, 0))
    with Site() as site:
        threading.Thread(target=site.serve_forever, args=[0.01], daemon=True).start()
        yield site
        site.shutdown()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "file.zip"


def cut_download(site, path):
    """Leaves half a file, as a call does whose attempts were all cut."""
    site.cuts = [HALF, 0, 0, 0]
    with pytest.raises(ConnectionError):
        download(site.url, path)
    site.requests.clear()
    assert path.with_name("file.zip.part").read_bytes() == CONTENT[:HALF]


def assert_downloaded(path, content=CONTENT):
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file.zip"]


def test_a_download_writes_every_byte_and_no_other_file(site, path):
    assert download(site.url, path) == path
    assert_downloaded(path)
    assert site.ranges == [None]


def test_an_existing_file_is_not_requested(site, path):
    path.parent.mkdir()
    path.write_bytes(b"mine")
    assert download(site.url, path) == path
    assert path.read_bytes() == b"mine"
    assert site.requests == []


def test_a_broken_download_resumes_where_it_stopped(site, path):
    site.cuts = [100_000, 50_000]
    download(site.url, path)
    assert_downloaded(path)
    assert site.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert site.requests[1]["If-Range"] == '"one"'


@pytest.mark.parametrize(
    "header, version", [("ETag", '"one"'), ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")]
)
def test_a_later_call_resumes_the_part_of_an_earlier_one(site, path, header, version):
    site.version_header, site.version = header, version
    cut_download(site, path)
    download(site.url, path)
    assert_downloaded(path)
    assert site.ranges == [f"bytes={HALF}-"]
    assert site.requests[0]["If-Range"] == version


def test_a_silent_connection_counts_as_broken(site, path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    site.cuts, site.hangs = [module.BLOCK_BYTES + 1], True
    download(site.url, path)
    assert_downloaded(path)
    assert site.ranges == [None, f"bytes={module.BLOCK_BYTES}-"]


def test_ranges_are_also_requested_after_a_redirect(site, path):
    cut_download(site, path)
    download(site.url.replace("file.zip", "moved"), path)
    assert_downloaded(path)
    assert site.ranges == [f"bytes={HALF}-"]


def test_a_download_that_was_killed_at_its_end_leaves_only_the_file(site, path):
    download(site.url, path)
    version_path = path.with_name("file.zip.part.version")
    version_path.write_text('"one"')
    download(site.url, path)
    assert list(path.parent.iterdir()) == [path]
    assert len(site.requests) == 1


def test_the_file_is_downloaded_from_its_start_if_the_server_ignores_ranges(site, path):
    cut_download(site, path)
    site.supports_ranges = False
    download(site.url, path)
    assert_downloaded(path)
    assert site.ranges == [f"bytes={HALF}-"]


@pytest.mark.parametrize("supports_if_range, requests", [(True, 1), (False, 2)])
def test_a_file_that_changed_in_the_meantime_is_downloaded_from_its_start(
    site, path, supports_if_range, requests
):
    cut_download(site, path)
    site.content, site.version, site.supports_if_range = CONTENT[::-1], '"two"', supports_if_range
    download(site.url, path)
    assert_downloaded(path, CONTENT[::-1])
    assert site.ranges == [f"bytes={HALF}-", None][:requests]


@pytest.mark.parametrize("content", [b"", b"short", CONTENT[:HALF][::-1]])
@pytest.mark.parametrize("supports_if_range", [True, False])
def test_a_file_that_shrank_in_the_meantime_is_downloaded_from_its_start(
    site, path, content, supports_if_range
):
    cut_download(site, path)
    site.content, site.version, site.supports_if_range = content, '"two"', supports_if_range
    download(site.url, path)
    assert_downloaded(path, content)


def test_a_part_longer_than_the_file_is_discarded(site, path):
    cut_download(site, path)
    path.with_name("file.zip.part").write_bytes(CONTENT + b"more")
    download(site.url, path)
    assert_downloaded(path)
    assert site.ranges == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_complete_part_is_renamed(site, path):
    cut_download(site, path)
    path.with_name("file.zip.part").write_bytes(CONTENT)
    download(site.url, path)
    assert_downloaded(path)
    assert site.ranges == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_a_part_of_unknown_version_is_not_resumed(site, path, etag):
    site.version, site.cuts = etag, [HALF]
    download(site.url, path)
    assert_downloaded(path)
    assert site.ranges == [None, None]


def test_a_file_of_unannounced_length_is_downloaded(site, path):
    site.announces_length = False
    download(site.url, path)
    assert_downloaded(path)


def test_the_error_after_the_last_attempt_states_the_received_bytes_and_gives_advice(site, path):
    site.cuts = [10, 10, 10, 10]
    with pytest.raises(ConnectionError) as caught:
        download(site.url, path)
    for words in [site.url, "attempt 4", "40 of the announced 512,000", "by hand", str(path)]:
        assert words in str(caught.value)
    assert not path.exists()
    assert site.ranges == [None, "bytes=10-", "bytes=20-", "bytes=30-"]


def test_a_file_shorter_than_announced_is_refused(site, path):
    site.missing = 5
    with pytest.raises(
        ConnectionError, match="512,000 of the announced 512,005 bytes were received"
    ):
        download(site.url, path)
    assert not path.exists()


def test_a_missing_file_is_requested_once(site, path):
    site.statuses = [404]
    with pytest.raises(ConnectionError, match="404.*Check the address.*by hand"):
        download(site.url, path)
    assert len(site.requests) == 1
    assert os.listdir(path.parent) == []


def test_requests_to_a_busy_server_are_repeated_after_growing_pauses(site, path, monkeypatch):
    pauses = []
    monkeypatch.setattr(module, "PAUSES", (0, 1, 4, 16))
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    site.statuses = [503, 429, 500]
    download(site.url, path)
    assert_downloaded(path)
    assert pauses == [0, 1, 4, 16]


def test_a_server_that_does_not_respond_is_a_connection_error(site, path):
    closed = Site()
    closed.server_close()
    with pytest.raises(ConnectionError, match="by hand"):
        download(closed.url, path)


PHOTOGRAPHS = {f"photographs/{number}.jpg": b"%d" % number * 5000 for number in range(5)}
UNPACKED = {name.removeprefix("photographs/"): content for name, content in PHOTOGRAPHS.items()}


def unpack_photographs(archive_path, folder):
    return unpack(archive_path, folder, lambda folders, name: folders == ("photographs",))


def write_zip(path, files, **options):
    """Writes a zip of {name or ZipInfo: content}."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def archive_path(tmp_path):
    return tmp_path / "archive.zip"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "folder"


def files_below(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_unpack_writes_every_file_and_returns_its_path(archive_path, folder, compression):
    write_zip(
        archive_path, {"./": b"", "photographs/": b"", **PHOTOGRAPHS}, compression=compression
    )
    assert unpack_photographs(archive_path, folder) == [folder / name for name in UNPACKED]
    assert files_below(folder) == UNPACKED


def test_an_empty_archive_gives_no_files(archive_path, folder):
    assert unpack_photographs(write_zip(archive_path, {}), folder) == []


def test_only_chosen_members_are_unpacked_and_without_their_folders(archive_path, folder):
    other_members = {
        "photographs/notes.txt": b"",
        "other/9.jpg": b"",
        "9.jpg": b"",
        "photographs/a/9.jpg": b"",
    }
    checked_members = []

    def should_unpack(folders, name):
        checked_members.append((folders, name))
        return folders == ("photographs",) and name.endswith(".jpg")

    unpack(write_zip(archive_path, other_members | PHOTOGRAPHS), folder, should_unpack)
    assert files_below(folder) == UNPACKED
    assert checked_members[:4] == [
        (("photographs",), "notes.txt"),
        (("other",), "9.jpg"),
        ((), "9.jpg"),
        (("photographs", "a"), "9.jpg"),
    ]


def test_an_archive_of_too_many_members_is_refused(archive_path, folder, monkeypatch):
    monkeypatch.setattr(module, "MAX_MEMBERS", 4)
    with pytest.raises(ValueError, match="Expected at most 4 members in .*, got 5"):
        unpack_photographs(write_zip(archive_path, PHOTOGRAPHS), folder)
    assert not folder.exists()


def test_a_list_of_members_that_would_fill_the_memory_is_not_read(archive_path, folder):
    with zipfile.ZipFile(archive_path, "w") as archive:
        for number in range(400):
            archive.writestr(f"{number}/{'a' * 60_000}", b"")
    with pytest.raises(ValueError, match="Expected at most 20,000,000 bytes of names in .*got 24,"):
        unpack_photographs(archive_path, folder)


@pytest.mark.parametrize("damage", ["the end", "the list"])
def test_an_archive_with_a_part_cut_out_is_refused(archive_path, folder, damage):
    write_zip(archive_path, PHOTOGRAPHS)
    content = archive_path.read_bytes()
    list_start, end_start = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    cut = {"the end": content[end_start:], "the list": content[list_start + 60 :]}
    archive_path.write_bytes(cut[damage])
    with pytest.raises(ValueError, match="Expected a whole zip archive in"):
        unpack_photographs(archive_path, folder)


def test_a_member_without_a_name_is_refused(archive_path, folder):
    write_zip(archive_path, {"x": b"text"})
    data = archive_path.read_bytes()
    begin = data.index(b"PK\x01\x02")  # its entry in the central directory
    nameless = data[begin : begin + 28] + b"\0\0" + data[begin + 30 : begin + 46]
    end = bytearray(data[begin + 47 :])
    end[12:16] = (46).to_bytes(4, "little")  # the length of the central directory
    archive_path.write_bytes(data[:begin] + nameless + end)
    with pytest.raises(ValueError, match="got one without a name: ''"):
        unpack_photographs(archive_path, folder)


def special_member(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    "member, fault",
    [
        ("../evil", "one outside the folder"),
        ("photographs/../../evil", "one outside the folder"),
        ("photographs\\..\\..\\evil", "one outside the folder"),
        ("/evil", "one outside the folder"),
        ("\\evil", "one outside the folder"),
        ("C:/evil", "one outside the folder"),
        ("C:evil", "one outside the folder"),
        ("//host/share/evil", "one outside the folder"),
        ("__MACOSX/../../evil", "one outside the folder"),
        ("../evil/", "one outside the folder"),
        (".", "one without a name"),
        (special_member("link", stat.S_IFLNK | 0o777), "a link or a device"),
        (special_member("pipe", stat.S_IFIFO | 0o666), "a link or a device"),
    ],
)
def test_an_archive_with_a_harmful_member_is_refused_before_anything_is_written(
    archive_path, folder, member, fault
):
    write_zip(archive_path, PHOTOGRAPHS | {member: b"/etc/passwd"})
    with pytest.raises(ValueError, match=f"got {fault}: .*Nothing was unpacked"):
        unpack_photographs(archive_path, folder)
    assert os.listdir(archive_path.parent) == ["archive.zip"]


def test_an_unusual_compression_is_refused(archive_path, folder):
    write_zip(archive_path, PHOTOGRAPHS, compression=zipfile.ZIP_LZMA)
    with pytest.raises(ValueError, match="got an unusual compression: 'photographs/0.jpg'"):
        unpack_photographs(archive_path, folder)


def test_an_encrypted_member_is_refused(archive_path, folder):
    write_zip(archive_path, {"secret.txt": b"text"})
    data = bytearray(archive_path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag "encrypted" of the central directory
    archive_path.write_bytes(data)
    with pytest.raises(ValueError, match="got an encrypted one: 'secret.txt'"):
        unpack_photographs(archive_path, folder)


def test_an_archive_that_unpacks_to_too_many_bytes_is_refused(archive_path, folder):
    write_zip(archive_path, PHOTOGRAPHS)
    with pytest.raises(ValueError, match="Expected at most 24,999 bytes in .*, got 25,000"):
        unpack(archive_path, folder, lambda *member: True, max_bytes=24_999)
    assert not folder.exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("damaged_byte", [0, 20])  # the first stops deflate, the second does not
def test_a_damaged_member_is_named_and_not_written(archive_path, folder, compression, damaged_byte):
    name = "photographs/2.jpg"
    write_zip(archive_path, PHOTOGRAPHS, compression=compression)
    data = bytearray(archive_path.read_bytes())
    data[data.index(name.encode()) + len(name) + damaged_byte] = 0xFF
    archive_path.write_bytes(data)
    with pytest.raises(ValueError, match="got a damaged one: 'photographs/2.jpg'.*download it"):
        unpack_photographs(archive_path, folder)
    assert sorted(files_below(folder)) == ["0.jpg", "1.jpg"]


def test_an_interrupted_unpacking_resumes_without_rewriting_files(
    archive_path, folder, monkeypatch
):
    write_zip(archive_path, PHOTOGRAPHS)
    names = []

    def cut_at_the_third(archive, member):
        names.append(member.filename)
        blocks = read(archive, member)
        yield next(blocks)[:100] if len(names) == 3 else next(blocks)
        if len(names) == 3:
            raise KeyboardInterrupt
        yield from blocks

    read = module._read_member
    monkeypatch.setattr(module, "_read_member", cut_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        unpack_photographs(archive_path, folder)
    assert sorted(files_below(folder)) == ["0.jpg", "1.jpg"]

    assert unpack_photographs(archive_path, folder) == [folder / name for name in UNPACKED]
    assert files_below(folder) == UNPACKED
    assert names[3:] == ["photographs/2.jpg", "photographs/3.jpg", "photographs/4.jpg"]


def test_a_file_of_another_size_is_rewritten(archive_path, folder):
    unpack_photographs(write_zip(archive_path, PHOTOGRAPHS), folder)
    (folder / "3.jpg").write_bytes(b"half")
    unpack_photographs(archive_path, folder)
    assert files_below(folder) == UNPACKED


def test_a_web_page_in_place_of_an_archive_is_refused(archive_path, folder):
    archive_path.write_text("<html>Please log in</html>")
    with pytest.raises(
        ValueError,
        match=r"Expected a whole zip archive in .*archive\.zip.*Delete the file and download it",
    ):
        unpack_photographs(archive_path, folder)


def test_half_an_archive_is_refused(archive_path, folder):
    write_zip(archive_path, PHOTOGRAPHS)
    archive_path.write_bytes(archive_path.read_bytes()[:10_000])
    with pytest.raises(ValueError, match="got another file or a part"):
        unpack_photographs(archive_path, folder)


def test_a_missing_archive_is_named(archive_path, folder):
    with pytest.raises(FileNotFoundError, match=r"no file .*archive\.zip. Download it"):
        unpack_photographs(archive_path, folder)
