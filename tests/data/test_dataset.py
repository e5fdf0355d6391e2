import os

import pytest
from PIL import Image

from captioning.data.dataset import (
    Dataset,
    list_image_names,
    read_descriptions,
    select,
    write_descriptions,
)

CAPTIONS = {"cat/1.jpg": ["Une été , “so” ."], "dog/1.jpg": ["A dog .", "Two\tdogs ."]}
SPLITS = {"train": ["dog/1.jpg", "cat/1.jpg"], "development": [], "test": []}


@pytest.mark.parametrize("folder", ["root/photos", "elsewhere/photos"])
def test_a_data_set_comes_back_as_it_was_saved(tmp_path, folder):
    images = tmp_path / folder
    images.mkdir(parents=True)
    dataset = Dataset(images, CAPTIONS, SPLITS)
    dataset.save(tmp_path / "root" / "dataset.json")
    assert Dataset.load(tmp_path / "root" / "dataset.json") == dataset


def test_images_below_the_root_can_be_moved_together_with_it(tmp_path):
    Dataset(tmp_path / "root" / "photos", CAPTIONS, SPLITS).save(tmp_path / "root" / "dataset.json")
    (tmp_path / "root").rename(tmp_path / "moved")
    assert Dataset.load(tmp_path / "moved" / "dataset.json").images == tmp_path / "moved" / "photos"


def test_it_prints_a_line_a_split_with_counts(tmp_path):
    assert str(Dataset(tmp_path, CAPTIONS, SPLITS)).splitlines() == [
        "train             2 images       3 captions",
        "development       0 images       0 captions",
        "test              0 images       0 captions",
    ]


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", "[" * 100_000, '{"images": 1, "captions": {}, "splits": {}}',
        '{"images": ".", "captions": [], "splits": {}}',
        '{"images": ".", "captions": {"a.jpg": "A dog ."}, "splits": {}}',
        '{"images": ".", "captions": {"a.jpg": [7]}, "splits": {}}',
        '{"images": ".", "captions": {}, "splits": {"train": {"a.jpg": 1}}}',
        '{"images": ".", "captions": {}, "splits": {"mine": ["a.jpg"]}}',
    ],
)  # fmt: skip
def test_a_damaged_data_set_is_an_error_that_says_what_to_do(tmp_path, content):
    path = tmp_path / "dataset.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="dataset.json is damaged .*python -m captioning check"):
        Dataset.load(path)


def test_a_missing_file_tells_which_step_makes_it(tmp_path):
    for read in (Dataset.load, read_descriptions):
        with pytest.raises(FileNotFoundError, match="python -m captioning check"):
            read(tmp_path / "gone")


def test_images_are_named_by_their_path_below_the_folder(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / ".thumbnails").mkdir()
    for name in ("b/c/1.PNG", "b/2.jpg", "z.gif", "a.jpeg", ".hidden.jpg", "b/.thumbnails/2.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "b" / "captions.csv").touch()
    assert list_image_names(tmp_path) == ["a.jpeg", "b/2.jpg", "b/c/1.PNG", "z.gif"]


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
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


def test_descriptions_come_back_as_they_were_written(tmp_path):
    descriptions = {"b.jpg": ["a dog", "a brown dog"], "a.jpg": ["été"]}
    path = tmp_path / "descriptions.txt"
    write_descriptions(path, descriptions)
    assert path.read_text(encoding="utf-8") == "b.jpg\ta dog\nb.jpg\ta brown dog\na.jpg\tété\n"
    assert read_descriptions(path) == descriptions


def test_a_malformed_description_is_named(tmp_path):
    path = tmp_path / "descriptions.txt"
    path.write_text("a.jpg a dog\n")
    with pytest.raises(ValueError, match="line 1: Expected an image name, a tab .*got 'a.jpg a"):
        read_descriptions(path)


@pytest.mark.parametrize(
    "name",
    [
        "a\tb.jpg", "a\u0085b.jpg", "a\u2028b.jpg", "a\x0bb.jpg", "a\nb.jpg", "a\r\nb.jpg",
        r"a\nb.jpg", "a\\.jpg", " a .jpg",
    ],
)  # fmt: skip
def test_descriptions_of_images_with_unusual_names_come_back(tmp_path, name):
    descriptions = {"first.jpg": ["a cat"], name: ["a dog", ""], "last.jpg": ["a bird"]}
    write_descriptions(tmp_path / "descriptions.txt", descriptions)
    assert read_descriptions(tmp_path / "descriptions.txt") == descriptions


def test_no_descriptions_come_back_as_none(tmp_path):
    write_descriptions(tmp_path / "descriptions.txt", {})
    assert read_descriptions(tmp_path / "descriptions.txt") == {}


def test_selecting_keeps_the_order_asked_for_and_leaves_out_what_is_not_there():
    assert list(select({"a": 1, "b": 2, "c": 3}, ["c", "x", "a"]).items()) == [("c", 3), ("a", 1)]
