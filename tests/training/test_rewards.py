import random
from math import exp

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu as PublishedBleu
from pycocoevalcap.cider.cider import Cider as PublishedCider

from captioning.data.vocabulary import Vocabulary
from captioning.inference.confidence import NO_CONTENT
from captioning.training.rewards import (
    Cider,
    References,
    Reward,
    Support,
    number_stems,
    score_bleu,
)

WORDS = [f"word{number}" for number in range(30)]


@pytest.fixture(scope="module")
def world():
    """One to five references and a caption of 20 images, of different lengths."""
    rng = random.Random(0)

    def draw_caption():
        return [rng.choice(WORDS) for _ in range(rng.randint(1, 12))]

    references = {
        f"{number}.jpg": [draw_caption() for _ in range(rng.randint(1, 5))] for number in range(20)
    }
    captions = {name: draw_caption() for name in references}
    captions["3.jpg"] = references["3.jpg"][0]
    captions["4.jpg"] = references["4.jpg"][0][:3] * 2  # repeated words
    captions["5.jpg"] = ["unknown", "words"]
    return references, captions


def cider(references, name, captions):
    """CIDEr-D of captions of an image, one of those in `references`."""
    counted = References(references)
    return Cider(counted)(counted.count_ngrams(name, captions))


def bleu(references, name, captions):
    return score_bleu(References(references).count_ngrams(name, captions))


def test_cider_is_that_of_the_published_package(world):
    references, captions = world
    _, expected = PublishedCider().compute_score(
        {name: list(map(" ".join, tokens)) for name, tokens in references.items()},
        {name: [" ".join(tokens)] for name, tokens in captions.items()},
    )
    scores = [cider(references, name, [caption])[0] for name, caption in captions.items()]
    assert scores == pytest.approx(list(expected), abs=1e-12)
    assert max(scores) > 1 > min(scores) == 0


def test_tokens_may_be_ids():
    words = {"a.jpg": [["a", "dog", "runs"]], "b.jpg": [["a", "cat"]]}
    ids = {"a.jpg": [[4, 5, 6]], "b.jpg": [[4, 7]]}
    assert cider(words, "a.jpg", [["a", "dog"]]) == cider(ids, "a.jpg", [[4, 5]]) > 0


def test_the_scores_of_several_captions_are_those_of_each(world):
    references, captions = world
    drawn = [*captions.values(), []]
    for score in (cider, bleu):
        together = score(references, "7.jpg", drawn)
        alone = [score(references, "7.jpg", [caption])[0] for caption in drawn]
        np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_a_caption_that_breaks_off_has_less_reward_if_the_end_counts_as_a_word():
    images = {"a.jpg": [["dog", "on", "grass", "END"]], "b.jpg": [["two", "cats", "END"]]}
    captions = [["dog", "on", "grass", "END"], ["dog", "on", "grass"], ["dog", "on", "END"]]
    whole, *broken_off = cider(images, "a.jpg", captions)
    assert whole > max(broken_off)


def test_an_empty_caption_has_no_reward():
    reward = Reward({"a.jpg": [["a", "dog"]], "b.jpg": [["a"]]}, bleu_weight=1.0)
    assert reward("a.jpg", [[]]).tolist() == [0]


def test_bleu_counts_an_n_gram_at_most_as_often_as_a_reference_contains_it():
    references = [["a", "dog", "runs", "on", "grass"], ["the", "dog", "runs"]]
    captions = [
        ["a", "dog", "runs", "on", "grass"],
        ["the", "dog", "dog", "sits"],
        ["dog", "runs"],
        ["cats"],
        [],
    ]
    scores = bleu({"a.jpg": references}, "a.jpg", captions)
    assert scores == pytest.approx(
        [
            1,
            # The words have precision 2/4; longer n-grams, with one more match, 2/4, 1/3 and 1/2.
            (2 / 4 * 2 / 4 * 1 / 3 * 1 / 2) ** 0.25,
            # All n-grams match; the closest reference is a word longer.
            exp(1 - 3 / 2),
            0,
            0,
        ]
    )


def test_bleu_is_that_of_the_published_package_if_every_n_gram_matches():
    references = [["a", "man", "rides", "a", "red", "bike", "down", "a", "hill"]]
    caption = ["a", "man", "rides", "a", "red", "bike"]
    _, image_scores = PublishedBleu(4).compute_score(
        {"a.jpg": [" ".join(references[0])]}, {"a.jpg": [" ".join(caption)]}, verbose=0
    )
    (score,) = bleu({"a.jpg": references}, "a.jpg", [caption])
    assert score == pytest.approx(image_scores[3][0], rel=1e-6)


def test_a_reward_is_the_weighted_sum_of_cider_and_bleu(world):
    references, captions = world
    reward, cider_alone = Reward(references, bleu_weight=2.0), Reward(references, bleu_weight=0.0)
    for name, caption in captions.items():
        image_cider = cider(references, name, [caption])
        (expected,) = image_cider + 2 * bleu(references, name, [caption])
        assert reward(name, [caption]) == [expected]
        assert cider_alone(name, [caption]) == image_cider


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.from_captions(["a dog is on the grass with two dogs and a cat"], 1)


def test_words_with_the_same_stem_have_the_same_number_and_others_none(vocabulary):
    stems = dict(zip(vocabulary.words, number_stems(vocabulary), strict=True))
    assert stems["dog"] == stems["dogs"] != NO_CONTENT
    assert len({stems[word] for word in ("dog", "grass", "two", "cat")}) == 4
    assert {stems[word] for word in ("a", "is", "on", "the", "with", "and")} == {NO_CONTENT}


def test_support_counts_the_content_words_that_a_reference_contains_less_the_others(vocabulary):
    references = {
        "a.jpg": map(vocabulary.encode, ["two dogs", "a dog on the grass"]),
        "b.jpg": map(vocabulary.encode, ["a cat"]),
    }
    support = Support(references, number_stems(vocabulary), weight=1)
    captions = ["two dogs with a cat", "a dog and a dog", "a cat", ""]
    encoded = [vocabulary.encode(caption) for caption in captions]
    np.testing.assert_array_equal(support("a.jpg", encoded), [2 - 1, 1, -1, 0])
    np.testing.assert_array_equal(support("b.jpg", encoded), [1 - 2, -1, 1, 0])


def test_the_support_has_a_weight_in_the_reward(vocabulary):
    captions = {"a.jpg": [vocabulary.encode("a dog")], "b.jpg": [vocabulary.encode("two cats")]}
    support = Support(captions, number_stems(vocabulary), weight=0.5)
    plain, supported = Reward(captions, 2.0), Reward(captions, 2.0, support)
    for caption, expected in (("a dog", 0.5), ("a cat", -0.5)):
        ids = [vocabulary.encode(caption)]
        assert supported("a.jpg", ids) - plain("a.jpg", ids) == pytest.approx(expected)
