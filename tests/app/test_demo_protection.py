import os
import time

import pytest

from captioning.app.demo_protection import Uploads


@pytest.fixture
def folder(tmp_path):
    for name in ("example", "upload"):
        (tmp_path / name).mkdir()
    (tmp_path / "example" / "cat.jpg").touch()
    return tmp_path


def make(path, age):
    path.parent.mkdir(exist_ok=True)
    path.touch()
    for old in (path, path.parent):
        os.utime(old, (time.time() - age,) * 2)
    return path


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_captioned_photographs_are_deleted_soon_and_others_after_two_minutes(folder):
    (folder / "upload").rmdir()
    uploads = Uploads(folder)
    names = set()
    uploads.keep_present_files([names])
    for name, age in (("answered", 11), ("just", 2), ("waiting", 100), ("forgotten", 130)):
        names.add(str(make(folder / name / "a.jpg", age)))
    for name in ("answered", "just"):
        uploads.mark_answered(folder / name / "a.jpg")
    uploads.delete_old()
    assert names == {str(folder / name / "a.jpg") for name in ("just", "waiting")}
    left = [path for path in files(folder) if path.endswith(".jpg")]
    assert left == ["example/cat.jpg", "just/a.jpg", "waiting/a.jpg"]


def test_empty_folders_are_deleted_after_two_minutes(folder):
    uploads = Uploads(folder)
    uploads.keep_present_files()
    (folder / "new").mkdir()
    (folder / "old").mkdir()
    os.utime(folder / "old", (time.time() - 130,) * 2)
    uploads.delete_old()
    assert files(folder) == ["example", "example/cat.jpg", "new", "upload"]


def test_an_example_stays_however_old_and_if_it_is_captioned(folder):
    make(folder / "example" / "cat.jpg", 10_000)
    uploads = Uploads(folder)
    uploads.keep_present_files()
    uploads.mark_answered(folder / "example" / "cat.jpg")
    uploads.delete_old()
    assert (folder / "example" / "cat.jpg").exists()


def test_a_missing_folder_is_no_error(folder):
    uploads = Uploads(folder / "gone")
    uploads.keep_present_files()
    uploads.delete_old()
    assert files(folder) == ["example", "example/cat.jpg", "upload"]
