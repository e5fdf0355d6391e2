"""Guided decoding, with a decoder that ignores the image: only the predicted mentions read it."""

import numpy as np
import pytest

from captioning.data.vocabulary import START, Vocabulary
from captioning.inference.confidence import NO_CONTENT, Confidence
from captioning.inference.decoder import Decoder
from captioning.inference.decoding import find_captions
from captioning.inference.guidance import Guide
from captioning.settings import BEAM_SEARCH, SearchSettings

VOCABULARY = Vocabulary(["dog", "cat", "ball", "and"])
DOG, CAT, BALL, AND = range(4, 8)
# Ids 4 to 6 have a regression: the square root of one of the three features each.
CONFIDENCE = Confidence(
    decoder="",
    coefficients=np.array([0.0, 1.0, 0.0]),
    word_rows=np.array([*[NO_CONTENT] * 4, 0, 1, 2, NO_CONTENT], np.int32),
    weights=np.vstack([np.eye(3), np.zeros((1, 3))]).astype("float32"),
    biases=np.zeros(4, "float32"),
)
# The log-probabilities of the first word, and of the others: the four reserved ids, dog, cat, ball
# and "and". Id 2 is the end.
with np.errstate(divide="ignore"):
    FIRST = np.log([0, 0, 0, 0, 0.5, 0.25, 0.2, 0.05], dtype="float32")
    LATER = np.log([0, 0, 0.3, 0, 0.35, 0.2, 0.1, 0.05], dtype="float32")
GREEDY = SearchSettings(1)
ALL_WORDS = np.array([1, 1, 1], "float32")  # features that predict every word


def make_decoder(longest_caption=3):
    def step(inputs):
        ids, hidden, cell, _ = inputs
        return [np.where((ids == START)[:, :, None], FIRST, LATER), hidden, cell]

    return Decoder(
        lambda inputs: [inputs[0].mean(axis=1)],
        step,
        VOCABULARY,
        longest_caption=longest_caption,
        feature_width=3,
        units=1,
        confidence=CONFIDENCE,
    )


def find(features, search=SearchSettings(), num_captions=1, decoder=None):
    (captions,) = find_captions(
        decoder or make_decoder(),
        np.array(features, "float32").reshape(1, 1, 3),
        search,
        num_captions,
    )
    return captions


def log_prob(caption):
    """The log-probability of a caption, without any guidance."""
    first, *others = VOCABULARY.encode(caption.text)[1:]
    return FIRST[first] + sum(LATER[others])


def test_the_beam_finds_words_that_only_the_image_predicts():
    # Of one hypothesis, "ball" is the best only if the guidance acts in the search itself.
    assert find([0, 0, 1], GREEDY)[0].text.startswith("ball")
    assert find([0, 0, 1], BEAM_SEARCH)[0].text.startswith("dog")


def test_a_word_loses_eight_times_what_its_score_lacks_and_gains_nothing():
    scores = np.array([-0.25, 0.5, 0], "float32")
    (biases,) = Guide(CONFIDENCE, longest_caption=3).extend_context((), scores)
    assert biases.tolist() == [-2, 0, 0]


def test_a_content_word_is_penalised_where_it_repeats():
    greedy_beam = SearchSettings(1, 0.7, "beam")
    assert find(ALL_WORDS, greedy_beam)[0].text == "dog dog dog"
    assert find(ALL_WORDS, GREEDY)[0].text == "dog"


def test_the_penalty_is_the_same_for_every_repetition_and_spares_words_without_content():
    guide = Guide(CONFIDENCE, longest_caption=4)
    step = guide.wrap(lambda ids, state, context: (np.zeros((1, 1, 8), "float32"), state))
    state = tuple(part[None, None] for part in guide.extend_state(()))
    context = (np.zeros((1, 8), "float32"),)
    for last_id in (START, DOG, AND, DOG):
        log_probs, state = step(np.array([[last_id]]), state, context)
    (penalties,) = log_probs[0]
    assert penalties.tolist() == [0, 0, 0, 0, -3, 0, 0, 0]


def test_captions_state_their_own_log_probability():
    for features in ([1, 0, 0], [0, 0, 1], ALL_WORDS):
        captions = find(features, num_captions=12)
        assert len(captions) > 5
        for caption in captions:
            assert caption.log_prob == pytest.approx(log_prob(caption), abs=1e-5)


def test_images_that_are_searched_side_by_side_are_guided_by_their_own_features():
    features = np.random.default_rng(0).random((40, 1, 3), dtype="float32") ** 4
    decoder = make_decoder()
    together = list(find_captions(decoder, features, SearchSettings(), 3))
    assert together == [find(image, num_captions=3) for image in features]
    assert len({captions[0].text for captions in together}) > 2


def test_a_model_without_confidence_is_not_guided():
    decoder = make_decoder()
    decoder.confidence = None
    assert find([0, 0, 1], GREEDY, decoder=decoder)[0].text.startswith("dog")


def test_a_search_for_rewards_is_not_guided():
    (hypotheses,) = make_decoder().search(np.array([[[0, 0, 1]]], "float32"), BEAM_SEARCH)
    assert hypotheses[0].ids[0] == DOG


def test_stored_maps_are_averaged_in_float32():
    decoder, maps = make_decoder(), np.full((1, 4096, 3), 100, "float16")
    seen = []
    decoder.confidence = lambda ids, log_prob, pooled: seen.append(pooled) or 0.5
    next(find_captions(decoder, maps, BEAM_SEARCH, 1))
    assert seen[0].dtype == "float32"
    assert seen[0].tolist() == [100, 100, 100]  # their sum is no number in float16
