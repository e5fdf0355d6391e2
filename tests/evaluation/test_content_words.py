import pytest

from captioning.evaluation.content_words import find_content_words, score_content_words


def test_function_words_are_left_out_and_the_others_are_stems_of_lemmas():
    assert find_content_words("two children are sitting on the dog 's beach") == [
        "two", "child", "sit", "dog", "beach",
    ]  # fmt: skip
    assert find_content_words("A man plays with men playing") == ["man", "play", "man", "play"]
    assert find_content_words("there is one on it") == ["one"]


def test_a_word_is_supported_by_any_reference_of_its_image_in_any_form():
    dog = ["a dog runs", "the dog on grass", "the brown animal is running on grass", "a brown dog"]
    references = {"dog.jpg": dog, "men.jpg": ["two men sit"]}
    captions = {"dog.jpg": "a brown dog jumps on grass", "men.jpg": "a man is sitting in the grass"}
    scores = score_content_words(captions, references)
    # Supported: brown, dog and grass of four words; man and sit of three.
    assert scores == {"supported words": pytest.approx(5 / 7), "content words": 3.5}


def test_a_word_of_one_reference_counts_less_since_each_reference_is_left_out_in_turn():
    references = {"dog.jpg": ["a dog runs", "a dog", "a dog", "a dog"]}
    scores = score_content_words({"dog.jpg": "a dog runs"}, references)
    assert scores["supported words"] == pytest.approx((1 + 3 / 4) / 2)


def test_a_caption_without_content_words_has_no_supported_words():
    scores = score_content_words({"dog.jpg": "it is there"}, {"dog.jpg": ["a dog"]})
    assert scores == {"supported words": 0, "content words": 0}
