import shutil
import sys

import pytest

from captioning.evaluation.metrics import (
    compute_cider_per_image,
    format_scores,
    keep_content_words,
    score_captions,
    score_content_words,
)

REFERENCES = {
    "dog.jpg": ["A brown dog runs on the grass .", "The dog is running over a green field ."],
    "boy.jpg": ["A boy jumps into the water .", "A child leaps into a blue pool ."],
    "man.jpg": ["Two men ride their bikes .", "Bikers on a dirt road ."],
}
CAPTIONS = {
    "dog.jpg": "a brown dog runs on the grass",
    "boy.jpg": "a boy jumps into a pool",
    "man.jpg": "a man rides a horse",
}


def test_a_caption_equal_to_a_reference_scores_bleu_of_one():
    same = {name: captions[0] for name, captions in REFERENCES.items()}
    scores = score_captions(same, REFERENCES, meteor=False)
    assert [scores[f"BLEU-{n}"] for n in (1, 2, 3, 4)] == pytest.approx([1] * 4)
    assert scores["ROUGE-L"] == pytest.approx(1)


def test_bleu_equals_the_value_computed_by_hand():
    """References contain all 7 words of the first caption, all 6 of the second (its two "a" are in
    the longer reference), and one "a" of the 5 words of the third. The lengths match, so there is
    no brevity penalty."""
    scores = score_captions(CAPTIONS, REFERENCES, meteor=False)
    assert scores["BLEU-1"] == pytest.approx((7 + 6 + 1) / 18)


def test_a_caption_of_other_words_scores_zero():
    scores = score_captions(dict.fromkeys(CAPTIONS, "zebra"), REFERENCES, meteor=False)
    assert scores["CIDEr"] == 0
    assert scores["ROUGE-L"] == 0
    assert scores["BLEU-4"] < 1e-6


def test_case_and_punctuation_do_not_change_the_scores():
    loud = {name: f"{caption.upper()} !" for name, caption in CAPTIONS.items()}
    assert score_captions(loud, REFERENCES, False) == score_captions(CAPTIONS, REFERENCES, False)


def test_cider_is_the_mean_over_the_images():
    per_image = compute_cider_per_image(CAPTIONS, REFERENCES)
    assert list(per_image) == list(CAPTIONS)
    assert per_image["dog.jpg"] > per_image["boy.jpg"] > per_image["man.jpg"]
    scores = score_captions(CAPTIONS, REFERENCES, meteor=False)
    assert sum(per_image.values()) / 3 == pytest.approx(scores["CIDEr"])


def test_distinct_captions_and_words_are_counted():
    captions = {"dog.jpg": "A dog .", "boy.jpg": "a dog", "man.jpg": "a man"}
    scores = score_captions(captions, REFERENCES, meteor=False)
    assert scores["distinct captions"] == 2
    assert scores["distinct words"] == 3


def test_captions_that_break_off_are_counted():
    captions = {"dog.jpg": "A dog runs in a .", "boy.jpg": "a boy with", "man.jpg": "a man within"}
    assert score_captions(captions, REFERENCES, meteor=False)["broken off"] == 2
    assert score_captions(CAPTIONS, REFERENCES, meteor=False)["broken off"] == 0
    nothing = dict.fromkeys(CAPTIONS, "")
    assert score_captions(nothing, REFERENCES, meteor=False)["broken off"] == 0


def test_cider_equals_the_value_of_its_formula():
    """Both images have one reference. In "a dog", the word "dog" and the pair occur in one image of
    two; "a" occurs in both and weighs log(2/2) = 0. The caption has the 1-grams and 2-grams of its
    reference and no longer ones: (1 + 1 + 0 + 0) / 4 * 10 = 5. The caption "a car" shares only "a"
    with its reference, which weighs nothing: 0."""
    per_image = compute_cider_per_image(
        {"1": "a dog", "2": "a car"}, {"1": ["a dog"], "2": ["a cat"]}
    )
    assert per_image == pytest.approx({"1": 5.0, "2": 0.0})


def test_rouge_equals_the_value_of_its_formula():
    """The longest common subsequence, "a dog runs", has 3 words: precision 3/4, recall 3/5.
    coco-caption takes the F-measure with beta 1.2."""
    scores = score_captions({"1": "a dog runs fast"}, {"1": ["a big dog runs away"]}, meteor=False)
    expected = (1 + 1.2**2) * 0.75 * 0.6 / (0.6 + 1.2**2 * 0.75)
    assert scores["ROUGE-L"] == pytest.approx(expected)


def test_the_order_of_the_images_does_not_matter():
    backwards = dict(reversed(CAPTIONS.items()))
    assert score_captions(backwards, REFERENCES, False) == pytest.approx(
        score_captions(CAPTIONS, REFERENCES, False)
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR needs Java")
def test_meteor_matches_inflected_words():
    close = {**CAPTIONS, "man.jpg": "two man riding their bike"}
    far = {**CAPTIONS, "man.jpg": "zebras graze behind fences somewhere"}
    close_score, far_score = (
        score_captions(captions, REFERENCES)["METEOR"] for captions in (close, far)
    )
    assert 0 < far_score < close_score < 1


def test_without_java_meteor_is_left_out(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert "METEOR" not in score_captions(CAPTIONS, REFERENCES)


def test_with_a_java_that_does_not_work_meteor_is_left_out(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: sys.executable)  # refuses -version
    assert "METEOR" not in score_captions(CAPTIONS, REFERENCES)


@pytest.mark.parametrize("captions", [{}, {"dog.jpg": "a dog"}, {**CAPTIONS, "cat.jpg": "a cat"}])
def test_captions_and_references_of_different_images_are_refused(captions):
    with pytest.raises(ValueError, match="Expected one caption and its references for each image"):
        score_captions(captions, REFERENCES)


def test_scores_are_printed_times_a_hundred_and_counts_as_they_are():
    text = format_scores({"BLEU-4": 0.1849, "CIDEr": 0.5, "distinct captions": 812})
    assert [line.split()[-1] for line in text.splitlines()] == ["18.5", "50.0", "812"]


def test_supported_words_are_counted_after_tokenising():
    captions = {name: f"{caption.title()}." for name, caption in CAPTIONS.items()}
    scores = score_captions(captions, REFERENCES, meteor=False)
    # dog and run occur in both references, 7 words in one of two, and horse in none.
    assert scores["supported words"] == pytest.approx((2 + 7 / 2) / 10)
    assert scores["content words"] == pytest.approx(10 / 3)
    lines = dict(line.rsplit(maxsplit=1) for line in format_scores(scores).splitlines())
    assert (lines["supported words"], lines["content words"]) == ("55.0", "3.3")


def test_function_words_are_left_out_and_the_others_are_stems_of_lemmas():
    assert keep_content_words("two children are sitting on the dog 's beach") == [
        "two", "child", "sit", "dog", "beach",
    ]  # fmt: skip
    assert keep_content_words("A man plays with men playing") == ["man", "play", "man", "play"]
    assert keep_content_words("there is one on it") == ["one"]


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
