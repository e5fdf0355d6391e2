import random

import pytest
from pycocoevalcap.cider.cider import Cider as PublishedCider

from captioning.reward import Cider

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
