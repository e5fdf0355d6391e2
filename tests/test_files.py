import os
import re
import subprocess
import sys
from errno import ENOSPC

import pytest

from captioning.files import (
    name_in_errors,
    only_writer,
    replace_when_written,
    write_atomically,
)


def test_a_file_appears_whole_and_no_temporary_file_remains(tmp_path):
    path = tmp_path / "new" / "captions.txt"
    with write_atomically(path, "w") as file:
        file.write("été\n")
        assert not path.exists()
    assert path.read_bytes() == b"\xc3\xa9t\xc3\xa9\n"
    assert os.listdir(path.parent) == ["captions.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_old_file_stays_when_writing_fails(tmp_path, error):
    path = tmp_path / "data"
    path.write_bytes(b"old")
    with pytest.raises(error), write_atomically(path) as file:
        file.write(b"half of the n")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["data"]


def test_a_file_written_by_a_library_appears_whole(tmp_path):
    path = tmp_path / "folder" / "model.weights.h5"
    with replace_when_written(path) as neighbour:
        assert neighbour.name.endswith("model.weights.h5") and neighbour != path
        neighbour.write_text("whole")
        assert not path.exists()
    with pytest.raises(ValueError), replace_when_written(path) as neighbour:
        neighbour.write_text("half")
        raise ValueError
    assert path.read_text() == "whole"
    assert [file.name for file in path.parent.iterdir()] == ["model.weights.h5"]


def test_a_mode_that_does_not_write_a_whole_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got .a."), write_atomically(tmp_path / "f", "a"):
        pass


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    with write_atomically(tmp_path / "ours") as file:
        file.write(b"")
    (tmp_path / "usual").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_file_that_a_killed_run_left_half_written_is_replaced(tmp_path):
    """The leftover may even be a link to somewhere else, which stays as it is."""
    (tmp_path / "elsewhere").write_text("not ours")
    (tmp_path / ".saving-data").symlink_to(tmp_path / "elsewhere")
    for content in ("first", "second"):
        with write_atomically(tmp_path / "data", "w") as file:
            file.write(content)
        assert (tmp_path / "data").read_text() == content
        (tmp_path / ".saving-data").write_text("half")
    assert (tmp_path / "elsewhere").read_text() == "not ours"


def test_a_file_may_have_the_longest_name_there_is(tmp_path):
    path = tmp_path / ("é" * 125 + ".jpg")
    with write_atomically(path, "w") as file:
        file.write("whole")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_an_error_of_the_disk_names_the_file_in_one_line(tmp_path):
    path = tmp_path / "data"
    line = re.escape(f"[Errno {ENOSPC}] {os.strerror(ENOSPC)}: '{path}'")
    with pytest.raises(OSError, match=f"^{line}$"), write_atomically(path):
        raise OSError(ENOSPC, "No space left\nafter 3 bytes")
    with pytest.raises(OSError, match=f"^{line}$"), replace_when_written(path):
        raise OSError(ENOSPC, "Unable to write")
    with pytest.raises(FileNotFoundError, match="elsewhere"), write_atomically(path):
        (tmp_path / "elsewhere").read_text()
    with pytest.raises(OSError, match=": '.*/data'$"), name_in_errors(path, tmp_path / "part"):
        (tmp_path / "part").read_text()
    with pytest.raises(OSError, match="^its own message$"), name_in_errors(path):
        raise OSError("its own message")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_or_a_folder_has_one_writer_at_a_time(tmp_path, kind):
    path = tmp_path / "written"
    if kind == "folder":
        path.mkdir()
    message = f"Expected one run at a time that writes .*written, got a second.* another {kind}."
    with only_writer(path):
        with pytest.raises(BlockingIOError, match=message), only_writer(path):
            pass
        with only_writer(tmp_path / "another"):
            pass
    with only_writer(path):
        pass
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_writer_is_told_by_any_of_the_names_of_its_file(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with only_writer(tmp_path / "file"), pytest.raises(BlockingIOError, match="file, got a second"):
        with only_writer(tmp_path / "link"):
            pass


def test_a_lock_ends_with_its_process_even_if_that_is_killed(tmp_path):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from captioning.files import only_writer\n"
        f"with only_writer(Path({str(tmp_path / 'file')!r})):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError), only_writer(tmp_path / "file"):
            pass
        process.kill()
    with only_writer(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_shared_file_is_written_by_several_at_once_and_each_time_whole(tmp_path):
    path = tmp_path / "file"
    with write_atomically(path, "w", shared=True) as first:
        first.write("the first")
        with write_atomically(path, "w", shared=True) as second:
            second.write("second")
            assert len(list(tmp_path.glob("file.*.tmp"))) == 2
        assert path.read_text() == "second"
    assert path.read_text() == "the first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_the_longest_name_can_be_locked(tmp_path):
    for ending in ("", f".{'b' * 240}"):
        path = tmp_path / f"{'a' * (252 - len(ending))}{ending}"
        with only_writer(path), pytest.raises(BlockingIOError), only_writer(path):
            pass
        with write_atomically(path, "w") as file:
            file.write("text")
        assert path.read_text() == "text"
