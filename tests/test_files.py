import os

import pytest

from captioning.files import replace_when_written, write_atomically


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
