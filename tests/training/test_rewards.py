import random
from math import exp

import pytest
from pycocoevalcap.bleu.bleu import Bleu as PublishedBleu
from pycocoevalcap.cider.cider import Cider as PublishedCider

from captioning.training.rewards import Bleu, Cider, Reward

WORDS = [f"word{number}" for number in range(30)]


@pytest.fixture(scope="module")
def world():
    """References of 20 images, some with one only, and captions of all lengths."""
    chance = random.Random(0)

    def sentence():
        return [chance.choice(WORDS) for _ in range(chance.randint(1, 12))]

    references = {
        f"{number}.jpg": [sentence() for _ in range(chance.randint(1, 5))] for number in range(20)
    }
    captions = {name: sentence() for name in references}
    captions["3.jpg"] = references["3.jpg"][0]
    captions["4.jpg"] = references["4.jpg"][0][:3] * 2  # words said twice
    captions["5.jpg"] = ["unheard", "of"]
    return references, captions


def test_it_is_the_published_score(world):
    references, captions = world
    _, expected = PublishedCider().compute_score(
        {name: [" ".join(one) for one in of] for name, of in references.items()},
        {name: [" ".join(caption)] for name, caption in captions.items()},
    )
    reward = Cider(references)
    received = [reward(name, caption) for name, caption in captions.items()]
    assert received == pytest.approx(list(expected), abs=1e-12)
    assert max(received) > 1 > min(received) == 0


def test_tokens_may_be_ids():
    words = Cider({"a.jpg": [["a", "dog", "runs"]], "b.jpg": [["a", "cat"]]})
    ids = Cider({"a.jpg": [[4, 5, 6]], "b.jpg": [[4, 7]]})
    assert words("a.jpg", ["a", "dog"]) == ids("a.jpg", [4, 5]) > 0


def test_an_end_that_counts_as_a_word_makes_breaking_off_cost():
    reward = Cider({"a.jpg": [["dog", "on", "grass", "END"]], "b.jpg": [["two", "cats", "END"]]})
    whole = reward("a.jpg", ["dog", "on", "grass", "END"])
    assert whole > reward("a.jpg", ["dog", "on", "grass"])
    assert whole > reward("a.jpg", ["dog", "on", "END"])


def test_nothing_said_is_worth_nothing():
    assert Cider({"a.jpg": [["a", "dog"]], "b.jpg": [["a"]]})("a.jpg", []) == 0


def test_bleu_counts_sequences_that_a_reference_says_as_often():
    bleu = Bleu({"a.jpg": [["a", "dog", "runs", "on", "grass"], ["the", "dog", "runs"]]})
    assert bleu("a.jpg", ["a", "dog", "runs", "on", "grass"]) == 1
    # Words 2/4; pairs 1/3, with one more of each 2/4; then 1/3 and 1/2. Long enough.
    received = bleu("a.jpg", ["the", "dog", "dog", "sits"])
    assert received == pytest.approx((2 / 4 * 2 / 4 * 1 / 3 * 1 / 2) ** 0.25)
    # All that is said is right; the nearest reference is a word longer.
    assert bleu("a.jpg", ["dog", "runs"]) == pytest.approx(exp(1 - 3 / 2))
    assert bleu("a.jpg", ["cats"]) == bleu("a.jpg", []) == 0


def test_bleu_is_that_of_the_published_package_where_every_sequence_is_found():
    references = [["a", "man", "rides", "a", "red", "bike", "down", "a", "hill"]]
    caption = ["a", "man", "rides", "a", "red", "bike"]
    _, each = PublishedBleu(4).compute_score(
        {"a.jpg": [" ".join(references[0])]}, {"a.jpg": [" ".join(caption)]}, verbose=0
    )
    assert Bleu({"a.jpg": references})("a.jpg", caption) == pytest.approx(each[3][0], rel=1e-6)


def test_a_reward_is_the_sum_of_both_by_their_weight(world):
    references, captions = world
    cider, bleu = Cider(references), Bleu(references)
    reward, cider_alone = Reward(references, bleu_weight=2.0), Reward(references, bleu_weight=0.0)
    for name, caption in captions.items():
        assert reward(name, caption) == cider(name, caption) + 2 * bleu(name, caption)
        assert cider_alone(name, caption) == cider(name, caption)
