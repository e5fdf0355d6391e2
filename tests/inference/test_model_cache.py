"""The model cache: what it keeps, and that no state of it changes or prevents a caption."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import captioning
from captioning.inference import model_cache
from captioning.inference.model_cache import clear_cache

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.jpg"))
CAPTION_OF_CAT = """
{beforehand}
import captioning
caption = captioning.load({root!r}).caption("examples/cat.jpg")
print(caption.text, caption.log_prob)
"""


def captions_of(root, cache=True):
    """The captions of two example photographs, by a newly loaded model that is gone afterwards."""
    return captioning.load(root, cache).caption_batch(EXAMPLES[:2], num_captions=3)


def cached_files(folder):
    return sorted(folder.glob("*"))


def start(root, beforehand=""):
    """Starts a process that captions one photograph."""
    code = CAPTION_OF_CAT.format(root=str(root), beforehand=beforehand)
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def output(process):
    return process.communicate(timeout=120)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of a cache that is still empty."""
    monkeypatch.setenv("CAPTIONING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def full_cache(tiny_root, tmp_path_factory):
    """A folder with the three networks of the tiny world."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTIONING_CACHE", str(folder))
        captions_of(tiny_root)
    return folder


@pytest.fixture
def compiled(monkeypatch):
    """Collects the networks that are compiled, not imported."""
    compiled = []
    original = model_cache.compile_network

    def compile_network(network, precision):
        compiled.append(network)
        return original(network, precision)

    monkeypatch.setattr(model_cache, "compile_network", compile_network)
    return compiled


def test_the_second_start_compiles_nothing_and_gives_the_same_captions(tiny_root, cache, compiled):
    without = captions_of(tiny_root, cache=False)
    assert len(compiled) == 3
    assert not cache.exists()
    first = captions_of(tiny_root)
    assert len(compiled) == 6
    assert len(cached_files(cache)) == 3
    second = captions_of(tiny_root)
    assert len(compiled) == 6
    assert without == first == second  # to the last bit of the log-probabilities


def test_the_shipped_model_gives_the_same_captions_from_the_cache(cache, compiled):
    without = captioning.load(cache=False).caption_batch(EXAMPLES[:8])
    captioning.load()
    assert captioning.load().caption_batch(EXAMPLES[:8]) == without
    assert len(compiled) == 6


@pytest.mark.skipif(sys.platform == "win32", reason="needs the permissions of POSIX")
def test_only_its_owner_may_read_the_folder(tiny_root, cache):
    captions_of(tiny_root)
    assert cache.stat().st_mode & 0o777 == 0o700


def test_another_model_has_other_files(tiny_root, cache, compiled, tmp_path):
    captions_of(tiny_root)
    shutil.copytree(tiny_root / "models", tmp_path / "other" / "models")
    shutil.copy(tiny_root / "tokenizer.p", tmp_path / "other")
    captions_of(tmp_path / "other")  # the same networks elsewhere
    assert len(compiled) == 3
    xml = tmp_path / "other" / "models" / "encoder.xml"
    xml.write_text(xml.read_text() + "\n")
    captions_of(tmp_path / "other")
    assert len(compiled) == 4
    assert len(cached_files(cache)) == 4


DAMAGES = {
    "empty": lambda content: b"",
    "cut in the checksum": lambda content: content[:10],
    "cut in half": lambda content: content[: len(content) // 2],
    "lacking its last byte": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "one bit flipped": lambda content: content[:-500] + bytes([content[-500] ^ 4]) + content[-499:],
    "all zeros": lambda content: bytes(len(content)),
    "another program's": lambda content: b"<html>not a network</html>",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_changes_no_caption_and_is_replaced(
    damage, tiny_root, full_cache, cache, compiled, capfd
):
    shutil.copytree(full_cache, cache)
    files = cached_files(cache)
    for path in files:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert captions_of(tiny_root) == captions_of(tiny_root, cache=False)
    assert len(compiled) == 6
    assert capfd.readouterr() == ("", "")
    assert cached_files(cache) == files
    captions_of(tiny_root)
    assert len(compiled) == 6  # the new files are whole


def test_a_file_that_openvino_refuses_is_replaced(tiny_root, full_cache, cache, compiled):
    shutil.copytree(full_cache, cache)
    for path in cached_files(cache):
        exported = b"compiled elsewhere"
        path.write_bytes(model_cache._DIGEST(exported).digest() + exported)
    assert captions_of(tiny_root) == captions_of(tiny_root, cache=False)
    assert len(compiled) == 6
    captions_of(tiny_root)
    assert len(compiled) == 6


@pytest.mark.parametrize("obstacle", ["a file", "a file above", "a folder in place of each file"])
def test_where_nothing_can_be_written_captioning_goes_on_without_a_word(
    obstacle, tiny_root, full_cache, cache, monkeypatch, capfd
):
    if obstacle == "a file":
        cache.write_text("")
    elif obstacle == "a file above":
        cache.parent.joinpath("above").write_text("")
        monkeypatch.setenv("CAPTIONING_CACHE", str(cache.parent / "above" / "cache"))
    else:
        for path in cached_files(full_cache):
            (cache / path.name).mkdir(parents=True)
    assert captions_of(tiny_root) == captions_of(tiny_root, cache=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs the limits of POSIX")
def test_a_full_disk_leaves_no_part_of_a_file(tiny_root, cache):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
    expected = captioning.load(tiny_root, cache=False).caption(ROOT / "examples" / "cat.jpg")
    assert output(start(tiny_root, limit)) == (f"{expected.text} {expected.log_prob}\n", "")
    assert cached_files(cache) == []


def test_off_stands_for_no_folder(tiny_root, tmp_path, monkeypatch, compiled):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPTIONING_CACHE", "off")
    captions_of(tiny_root)
    captions_of(tiny_root)
    assert len(compiled) == 6
    assert cached_files(tmp_path) == []


def test_the_oldest_networks_go_when_the_folder_is_full(tiny_root, full_cache, cache, monkeypatch):
    cache.mkdir()
    earlier = [f"{number:064x}.network" for number in range(3)]
    for days, name in enumerate(earlier, start=1):
        (cache / name).write_bytes(bytes(1000))
        os.utime(cache / name, (time.time() - 86400 * days,) * 2)
    (cache / "notes.txt").write_bytes(bytes(10**6))
    tiny_networks = {path.name: path.stat().st_size for path in cached_files(full_cache)}
    monkeypatch.setattr(model_cache, "MAX_BYTES", sum(tiny_networks.values()) + 1500)
    captions_of(tiny_root)
    assert {path.name for path in cached_files(cache)} == {earlier[0], "notes.txt", *tiny_networks}


def test_clearing_deletes_the_networks_and_unfinished_files_alone(full_cache, cache):
    shutil.copytree(full_cache, cache)
    first = cached_files(cache)[0]
    first.with_name(f"{first.name}.0123abcd.tmp").write_bytes(b"12345")
    size = sum(path.stat().st_size for path in cached_files(cache))
    (cache / "notes.txt").write_text("mine")
    assert clear_cache(cache) == (4, size)
    assert [path.name for path in cached_files(cache)] == ["notes.txt"]
    (cache / "notes.txt").unlink()
    assert clear_cache(cache) == (0, 0)
    assert not cache.exists()
    assert clear_cache(cache) == (0, 0)


def test_processes_that_start_at_once_get_the_same_caption_and_leave_one_file_a_network(
    tiny_root, cache
):
    processes = [start(tiny_root) for _ in range(6)]
    printed = [output(process) for process in processes]
    expected = captioning.load(tiny_root, cache=False).caption(ROOT / "examples" / "cat.jpg")
    assert printed == [(f"{expected.text} {expected.log_prob}\n", "")] * 6
    assert [path.suffix for path in cached_files(cache)] == [".network"] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="links are for administrators there")
def test_clearing_goes_on_where_another_process_has_deleted_a_file(full_cache, cache):
    shutil.copytree(full_cache, cache)
    first = cached_files(cache)[0]
    listed = first.with_name(f"{first.name}.0123abcd.tmp")
    listed.symlink_to(cache / "deleted")  # so it is listed, but not found
    assert clear_cache(cache)[0] == 3
    assert cached_files(cache) == [listed]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_processes_killed_at_any_moment_spoil_no_later_start(cache):
    expected = captioning.load(cache=False).caption(ROOT / "examples" / "cat.jpg")
    began = time.monotonic()
    output(start(ROOT))
    seconds = time.monotonic() - began
    for number in range(20):
        if number % 4 == 0:
            clear_cache(cache)
        process = start(ROOT)
        time.sleep(seconds * (0.5 + number / 40))
        process.send_signal(signal.SIGKILL)
        output(process)
        for path in cached_files(cache):
            if path.suffix == ".network":
                content = path.read_bytes()
                assert content[:32] == model_cache._DIGEST(content[32:]).digest()
    assert captioning.load().caption(ROOT / "examples" / "cat.jpg") == expected
    assert output(start(ROOT)) == (f"{expected.text} {expected.log_prob}\n", "")
