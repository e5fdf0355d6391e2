import pytest

from captioning.data.dataset import (
    Dataset,
    complete_splits,
    load_with_descriptions,
    parse_split,
    read_descriptions,
    select,
    write_descriptions,
)

CAPTIONS = {"cat/1.jpg": ["Une été , “so” ."], "dog/1.jpg": ["A dog .", "Two\tdogs ."]}
SPLITS = {"train": ["dog/1.jpg", "cat/1.jpg"], "development": ["cat/1.jpg"], "test": ["dog/1.jpg"]}


@pytest.mark.parametrize("folder", ["root/photos", "elsewhere/photos"])
def test_a_data_set_is_loaded_as_it_was_saved(tmp_path, folder):
    images = tmp_path / folder
    images.mkdir(parents=True)
    dataset = Dataset(images, CAPTIONS, SPLITS)
    dataset.save(tmp_path / "root" / "dataset.json")
    assert Dataset.load(tmp_path / "root" / "dataset.json") == dataset


def test_images_below_the_root_can_be_moved_together_with_it(tmp_path):
    Dataset(tmp_path / "root" / "photos", CAPTIONS, SPLITS).save(tmp_path / "root" / "dataset.json")
    (tmp_path / "root").rename(tmp_path / "moved")
    assert Dataset.load(tmp_path / "moved" / "dataset.json").images == tmp_path / "moved" / "photos"


def test_a_data_set_prints_a_line_for_each_split_with_counts(tmp_path):
    assert str(Dataset(tmp_path, CAPTIONS, SPLITS)).splitlines() == [
        "train             2 images       3 captions",
        "development       1 images       1 captions",
        "test              1 images       2 captions",
    ]


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", "[" * 100_000, '{"images": 1, "captions": {}, "splits": {}}',
        '{"images": ".", "captions": [], "splits": {}}',
        '{"images": ".", "captions": {"a.jpg": "A dog ."}, "splits": {}}',
        '{"images": ".", "captions": {"a.jpg": [7]}, "splits": {}}',
        '{"images": ".", "captions": {}, "splits": {"train": {"a.jpg": 1}}}',
        '{"images": ".", "captions": {"a.jpg": ["A"]}, "splits": {"train": ["a.jpg"]}}',
        '{"images": ".", "captions": {"a.jpg": ["A"]}, "splits": {"train": ["a.jpg"], '
        '"development": ["b.jpg"], "test": ["a.jpg"]}}',
    ],
)  # fmt: skip
def test_a_damaged_data_set_is_refused_with_advice(tmp_path, content):
    path = tmp_path / "dataset.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="data set in .*dataset.json, got .*captioning check"):
        Dataset.load(path)


def test_captions_of_another_check_are_refused(tmp_path):
    Dataset(tmp_path, CAPTIONS, SPLITS).save(tmp_path / "dataset.json")
    descriptions = {"cat/1.jpg": ["une été"], "dog/1.jpg": ["a dog", "two dogs"]}
    paths = (tmp_path / "dataset.json", tmp_path / "descriptions.txt")
    write_descriptions(paths[1], descriptions)
    assert load_with_descriptions(*paths) == (Dataset(tmp_path, CAPTIONS, SPLITS), descriptions)
    write_descriptions(paths[1], descriptions | {"dog/2.jpg": ["a dog"]})
    with pytest.raises(ValueError, match="the 2 images of .*dataset.json, got 3"):
        load_with_descriptions(*paths)


def test_the_message_for_a_missing_file_names_the_step_that_writes_it(tmp_path):
    for read in (Dataset.load, read_descriptions):
        with pytest.raises(FileNotFoundError, match="`captioning check"):
            read(tmp_path / "gone")


def test_descriptions_are_read_as_they_were_written(tmp_path):
    descriptions = {"b.jpg": ["a dog", "a brown dog"], "a.jpg": ["été"]}
    path = tmp_path / "descriptions.txt"
    write_descriptions(path, descriptions)
    assert path.read_text(encoding="utf-8") == "b.jpg\ta dog\nb.jpg\ta brown dog\na.jpg\tété\n"
    assert read_descriptions(path) == descriptions


def test_the_message_for_a_malformed_description_names_its_line(tmp_path):
    path = tmp_path / "descriptions.txt"
    path.write_text("a.jpg a dog\n")
    with pytest.raises(ValueError, match="line 1: Expected an image name, a tab .*got 'a.jpg a"):
        read_descriptions(path)


@pytest.mark.parametrize(
    "name",
    [
        "a\tb.jpg", "a\u0085b.jpg", "a\u2028b.jpg", "a\x0bb.jpg", "a\nb.jpg", "a\r\nb.jpg",
        r"a\nb.jpg", "a\\.jpg", " a .jpg", "caf\udce9.jpg", r"caf\udce9.jpg", r"a\\udce9.jpg",
    ],
)  # fmt: skip
def test_descriptions_of_images_with_unusual_names_are_read_as_they_were_written(tmp_path, name):
    descriptions = {"first.jpg": ["a cat"], name: ["a dog", ""], "last.jpg": ["a bird"]}
    write_descriptions(tmp_path / "descriptions.txt", descriptions)
    assert read_descriptions(tmp_path / "descriptions.txt") == descriptions


def test_an_empty_file_of_descriptions_is_read_as_no_captions(tmp_path):
    write_descriptions(tmp_path / "descriptions.txt", {})
    assert read_descriptions(tmp_path / "descriptions.txt") == {}


def test_select_follows_the_order_of_the_names_and_ignores_missing_ones():
    assert list(select({"a": 1, "b": 2, "c": 3}, ["c", "x", "a"]).items()) == [("c", 3), ("a", 1)]


NAMES = [f"{number:04}.jpg" for number in range(2000)]


def test_a_split_is_recognised_by_all_its_usual_names():
    assert [parse_split(word) for word in ("train", "Training", " restval ")] == ["train"] * 3
    assert [parse_split(word) for word in ("val", "dev", "validation")] == ["development"] * 3
    assert [parse_split(word) for word in ("TEST", "holdout", "")] == ["test", None, None]


def test_every_image_is_in_one_split_and_the_splits_have_about_their_shares():
    splits = complete_splits({}, NAMES)
    assert list(splits) == ["train", "development", "test"]
    assert sorted(sum(splits.values(), [])) == NAMES
    assert len(splits["test"]) == pytest.approx(200, abs=40)
    assert len(splits["development"]) == pytest.approx(180, abs=40)


def test_a_draw_does_not_depend_on_machine_or_order():
    splits = complete_splits({}, NAMES[:20])
    assert splits["development"] == ["0018.jpg"]
    assert splits["test"] == ["0011.jpg"]
    again = complete_splits({}, NAMES[19::-1])
    assert {split: sorted(names) for split, names in again.items()} == splits


def test_no_image_changes_its_split_when_others_are_added():
    few, many = complete_splits({}, NAMES[:500]), complete_splits({}, NAMES)
    for split in few:
        assert set(few[split]) <= set(many[split])


@pytest.mark.parametrize("count", range(3, 40))
def test_small_data_sets_have_an_image_in_every_split_and_most_in_training(count):
    for first in range(0, 400, 40):
        splits = complete_splits({}, NAMES[first : first + count])
        assert splits["development"] and splits["test"]
        assert len(splits["train"]) >= count / 3


def test_named_splits_stay_as_they_are():
    named = {"train": ["b", "a"], "test": ["d"], "development": ["c"]}
    assert complete_splits(named, ["a", "b", "c", "d", "e"]) == named


def test_a_missing_split_is_drawn_only_from_the_training_images():
    named = {"train": NAMES[:1000], "test": NAMES[1000:]}
    splits = complete_splits(named, NAMES)
    assert splits["test"] == NAMES[1000:]
    assert sorted(splits["train"] + splits["development"]) == NAMES[:1000]
    assert len(splits["development"]) == pytest.approx(100, abs=30)


@pytest.mark.parametrize("named", [{}, {"test": ["a"], "development": ["b"]}, {"train": ["a"]}])
def test_too_few_training_images_are_refused_with_advice(named):
    message = "Expected . training images or more in my_captions.csv, .*Add captioned"
    with pytest.raises(ValueError, match=message):
        complete_splits(named, ["a", "b"], "my_captions.csv")
