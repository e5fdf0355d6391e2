import pytest

from captioning.data.splits import complete_splits, parse_split
from captioning.settings import SplitSettings

NAMES = [f"{number:04}.jpg" for number in range(2000)]


def test_a_split_is_understood_by_all_names_that_the_field_gives_it():
    assert [parse_split(word) for word in ("train", "Training", " restval ")] == ["train"] * 3
    assert [parse_split(word) for word in ("val", "dev", "validation")] == ["development"] * 3
    assert [parse_split(word) for word in ("TEST", "holdout", "")] == ["test", None, None]


def test_every_image_is_drawn_into_one_split_in_about_the_shares_that_are_set():
    splits = complete_splits({}, NAMES, SplitSettings(development=0.05, test=0.2))
    assert list(splits) == ["train", "development", "test"]
    assert sorted(sum(splits.values(), [])) == NAMES
    assert len(splits["test"]) == pytest.approx(400, abs=60)
    assert len(splits["development"]) == pytest.approx(80, abs=25)


def test_a_draw_is_the_same_everywhere_and_in_any_order():
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
def test_small_collections_have_an_image_in_every_split_and_most_in_training(count):
    for first in range(0, 400, 40):
        splits = complete_splits({}, NAMES[first : first + count])
        assert splits["development"] and splits["test"]
        assert len(splits["train"]) >= count / 3


def test_a_split_that_is_named_stays_as_it_is():
    named = {"train": ["b", "a"], "test": ["d"], "development": ["c"]}
    assert complete_splits(named, ["a", "b", "c", "d", "e"]) == named


def test_a_split_that_is_not_named_is_drawn_from_the_training_images_alone():
    named = {"train": NAMES[:1000], "test": NAMES[1000:]}
    splits = complete_splits(named, NAMES)
    assert splits["test"] == NAMES[1000:]
    assert sorted(splits["train"] + splits["development"]) == NAMES[:1000]
    assert len(splits["development"]) == pytest.approx(100, abs=30)


@pytest.mark.parametrize("named", [{}, {"test": ["a"], "development": ["b"]}, {"train": ["a"]}])
def test_too_few_training_images_are_an_error_that_says_what_to_do(named):
    with pytest.raises(ValueError, match="Expected . training images or more.*Add captioned"):
        complete_splits(named, ["a", "b"])
