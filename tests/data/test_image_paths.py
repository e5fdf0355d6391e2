import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from captioning.data.image_paths import find_images, image_extensions, list_image_names


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a folder of photographs and more."""
    for name in (
        "photos/10.jpg", "photos/2.jpeg", "photos/Zoo.PNG", "photos/apple.webp",
        "photos/sub/deep/1.gif", "photos/.hidden.jpg", "photos/.trash/gone.jpg",
        "photos/notes.txt", "photos/film.mpg", "photos/weights.h5", "photos/page.ps", "empty/a.txt",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


IN_READING_ORDER = ["photos/2.jpeg", "photos/10.jpg", "photos/apple.webp", "photos/sub/deep/1.gif"]
IN_READING_ORDER += ["photos/Zoo.PNG"]


def image_paths(*names, skip=None):
    images, problems = find_images(names, skip)
    assert problems == []
    return [Path(path).as_posix() for path in images]


def test_a_folder_gives_its_images_in_reading_order(folder):
    assert image_paths("photos") == IN_READING_ORDER


def test_numbers_are_sorted_by_value_with_or_without_leading_zeros(folder):
    names = ["01/3.jpg", "01/20.jpg", "1/007.jpg", "1/7.jpg", "1/7a.jpg", "a/1.jpg", "a10/1.jpg"]
    expected = [f"numbers/{name}" for name in [*names, "a 2/1.jpg"]]
    for path in map(Path, expected):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert image_paths("numbers") == image_paths("numbers/**/*.jpg") == expected


def test_the_current_folder_is_not_part_of_a_path(folder, monkeypatch):
    monkeypatch.chdir("photos")
    assert image_paths(".") == [name.removeprefix("photos/") for name in IN_READING_ORDER]


def test_a_pattern_gives_the_files_that_a_shell_would_match(folder):
    assert image_paths("photos/*.jp*g") == ["photos/2.jpeg", "photos/10.jpg"]
    assert image_paths("photos/[az]*") == image_paths("photos/apple.webp")
    assert image_paths("photos/**/*.gif") == ["photos/sub/deep/1.gif"]


def test_a_pattern_that_matches_a_folder_gives_its_images(folder):
    assert image_paths("photos/s*") == ["photos/sub/deep/1.gif"]
    assert image_paths("ph*") == IN_READING_ORDER


def test_a_file_that_you_name_is_included_whatever_its_ending(folder):
    names = ["photos/notes.txt", "photos/.hidden.jpg", "gone.jpg"]
    assert image_paths(*names) == names


def test_images_keep_the_order_of_the_names_and_are_not_repeated(folder):
    first = "photos/Zoo.PNG"
    assert image_paths(first, "./photos/../photos/Zoo.PNG", "photos", "photos/*.PNG") == [
        first,
        *IN_READING_ORDER[:-1],
    ]


def test_images_of_repeated_or_nested_folders_are_not_repeated(folder):
    names = ["photos/sub", "photos", str(Path("photos").resolve()), "photos/**"]
    *without_last, last = IN_READING_ORDER
    assert image_paths(*names)[:5] == ["photos/sub/deep/1.gif", *without_last[:-1], last]
    assert len(image_paths(*names)) == len(set(map(os.path.abspath, image_paths(*names))))


@pytest.mark.skipif(sys.platform == "win32", reason="a star is in no file name there")
def test_an_existing_file_with_a_name_like_a_pattern_is_that_file(folder):
    for name in ("photo[1].jpg", "photo1.jpg", "what*.jpg", "whatever.jpg"):
        Path(name).touch()
    assert image_paths("photo[1].jpg", "what*.jpg") == ["photo[1].jpg", "what*.jpg"]


def test_folders_and_patterns_without_an_image_are_problems(folder):
    images, problems = find_images(["empty", "photos/*.tiff", "photos/10.jpg"])
    assert list(images) == [str(Path("photos/10.jpg"))]
    folder_problem, pattern_problem = map(str, problems)
    assert "no image in the folder empty" in folder_problem
    assert "No file matches photos/*.tiff" in pattern_problem


def test_folders_and_patterns_leave_out_the_skipped_folder(folder):
    skip = Path("photos/../photos/sub")
    expected = [name for name in IN_READING_ORDER if "sub" not in name]
    assert image_paths("photos", skip=skip) == expected
    assert image_paths("photos/**/*.[jmw]*p*", skip=skip) == [
        expected[0],
        expected[1],
        "photos/apple.webp",
        "photos/film.mpg",
    ]
    _, (folder_problem, pattern_problem) = find_images(["photos/sub", "photos/s*"], Path("photos"))
    assert "no image in the folder photos/sub outside photos" in str(folder_problem)
    assert "No file outside photos matches photos/s*" in str(pattern_problem)
    assert image_paths("photos/sub/deep/1.gif", skip=skip) == ["photos/sub/deep/1.gif"]


def test_a_folder_that_cannot_be_read_is_a_problem(folder, monkeypatch):
    scandir = os.scandir

    def forbid_sub(path):
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbid_sub)
    images, (problem,) = find_images(["photos"])
    assert [Path(path).as_posix() for path in images] == [
        path for path in IN_READING_ORDER if "sub" not in path
    ]
    assert "Permission denied" in str(problem) and "sub" in str(problem)


links = pytest.mark.skipif(sys.platform == "win32", reason="links are for administrators there")


@links
def test_links_to_folders_are_followed(folder):
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "3.jpg").touch()
    Path("photos/link").symlink_to("../elsewhere")
    assert image_paths("photos") == [
        *IN_READING_ORDER[:3],
        "photos/link/3.jpg",
        *IN_READING_ORDER[3:],
    ]


@links
def test_links_to_a_folder_above_are_followed_once(folder):
    for name in ("loop", "sub/other_loop", "third"):
        Path("photos", name).symlink_to(folder)
    assert image_paths("photos") == IN_READING_ORDER
    assert image_paths("photos/**/*.gif") == ["photos/sub/deep/1.gif"]
    assert sorted(image_paths("**")) == sorted(IN_READING_ORDER)


@links
def test_a_folder_with_two_names_is_walked_once_by_its_own_name(folder):
    Path("photos/a_link").symlink_to("sub")
    Path("same").symlink_to("photos")
    assert image_paths("photos") == IN_READING_ORDER
    assert image_paths("photos", "same", "same/2.jpeg") == IN_READING_ORDER


@links
def test_a_link_to_itself_is_a_file_that_cannot_be_opened(folder):
    os.symlink("loop", "photos/loop")
    os.symlink("loop.jpg", "photos/loop.jpg")
    assert image_paths("photos") == [
        *IN_READING_ORDER[:3],
        "photos/loop.jpg",
        *IN_READING_ORDER[3:],
    ]


@links
def test_two_links_to_a_photograph_are_two_photographs(folder):
    for name in ("b.jpg", "a.jpg"):
        Path("empty", name).symlink_to("../photos/10.jpg")
    assert image_paths("empty") == ["empty/a.jpg", "empty/b.jpg"]


@links
def test_a_folder_is_skipped_by_any_of_its_names(folder):
    Path("same").symlink_to("photos/sub")
    expected = [name for name in IN_READING_ORDER if "sub" not in name]
    assert image_paths("photos", skip=Path("same")) == expected


@links
def test_pipes_and_broken_links_with_the_ending_of_an_image_are_included(folder):
    os.mkfifo("empty/pipe.jpg")
    Path("empty/nowhere.jpg").symlink_to("gone.jpg")
    assert image_paths("empty") == ["empty/nowhere.jpg", "empty/pipe.jpg"]


def test_images_that_pillow_does_not_read_are_included(folder):
    for name in ("IMG_2.HEIC", "raw.NEF", "IMG_2.MOV"):
        Path("empty", name).touch()
    assert image_paths("empty") == ["empty/IMG_2.HEIC", "empty/raw.NEF"]


def test_image_extensions_include_formats_that_pillow_does_not_read_but_no_films():
    assert {".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".nef"} <= image_extensions()
    assert not {".mpg", ".h5", ".ps", ".txt", ".pdf"} & image_extensions()


def test_image_names_are_paths_below_the_folder(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / ".thumbnails").mkdir()
    for name in ("b/c/1.PNG", "b/2.jpg", "z.gif", "a.jpeg", ".hidden.jpg", "b/.thumbnails/2.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "b" / "captions.csv").touch()
    assert list_image_names(tmp_path) == ["a.jpeg", "b/2.jpg", "b/c/1.PNG", "z.gif"]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    def forbid(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", forbid)
    with pytest.raises(PermissionError):
        list_image_names(tmp_path)


@pytest.mark.parametrize("folder", ["empty", "gone"])
def test_a_folder_without_images_is_refused(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=f"There is no image in .*{folder}. Name the"):
        list_image_names(tmp_path / folder)
