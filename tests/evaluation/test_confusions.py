import pytest

from captioning.evaluation.confusions import GROUPS, Confusion, find_confusions


def confusions(caption, *references, group="people"):
    """The pairs (predicted, expected) of one image."""
    by_group = find_confusions({"a.jpg": caption}, {"a.jpg": references})
    return [(confusion.predicted, confusion.expected) for confusion in by_group[group]]


def test_a_word_that_no_reference_contains_is_confused_with_the_word_that_two_agree_on():
    assert confusions("a man runs", "A woman runs .", "The woman jogs .") == [("man", "woman")]


@pytest.mark.parametrize(
    ("caption", "references", "why"),
    [
        ("a man runs", ["A woman runs .", "Somebody runs ."], "a single reference proves little"),
        ("a man runs", ["A woman .", "A woman .", "A man ."], "one reference contains the word"),
        ("a person runs", ["A woman .", "A woman ."], "an open word is not wrong"),
        (
            "a man and a woman",
            ["A woman .", "A woman ."],
            "the caption contains the agreed word as well",
        ),
        ("a dog runs", ["A woman .", "A woman ."], "words of two groups are not compared"),
        ("a man runs", [], "there are no references"),
    ],
)
def test_no_confusion_is_counted_for_an_unclear_difference(caption, references, why):
    assert confusions(caption, *references) == [], why


def test_all_forms_of_a_word_count_as_that_word():
    assert confusions("two men run", "Two girls run .", "A girl and another girl") == [
        ("man", "girl")
    ]
    assert confusions("a man runs", "Men run .", "A woman .", "A woman .") == []
    assert confusions("two dogs", "3 dogs", "Three dogs", group="counts") == [("two", "three")]


def test_a_word_that_the_caption_contains_is_not_expected_in_place_of_another():
    references = ["A brown and white dog .", "A white dog with brown ears ."]
    assert confusions("a black and white dog", *references, group="colours") == [("black", "brown")]


def test_confusions_are_sorted_by_the_number_of_their_images():
    captions = {"a": "a man", "b": "a man", "c": "a boy", "d": "a man"}
    references = {"a": ["girl"] * 2, "b": ["woman"] * 2, "c": ["girl"] * 2, "d": ["woman"] * 2}
    assert find_confusions(captions, references)["people"] == [
        Confusion("man", "woman", ("b", "d"), caption_count=3),
        Confusion("boy", "girl", ("c",), caption_count=1),
        Confusion("man", "girl", ("a",), caption_count=3),
    ]


def test_every_group_is_listed_even_without_confusions():
    assert find_confusions({}, {}) == {group: [] for group in GROUPS}


def test_no_form_belongs_to_two_words_of_a_group():
    for words in GROUPS.values():
        forms = " ".join(words).split()
        assert len(set(forms)) == len(forms)
