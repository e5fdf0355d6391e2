"""How well confidences predict which captions references support."""

import tracemalloc

import numpy as np
import pytest

from captioning.evaluation.metrics import (
    find_reliability,
    find_supported,
    score_confidences,
)


def test_a_caption_is_supported_if_references_hold_more_than_half_of_its_content_words():
    references = {"a.jpg": ["Two dogs run .", "A brown dog is running on grass ."]}
    verdicts = {
        "a dog is running": True,
        "a black dog runs on sand": False,  # two of four
        "the dogs run on the grass": True,
        "a cat": False,
        "on the": False,
    }
    for caption, verdict in verdicts.items():
        assert find_supported({"a.jpg": caption}, references).tolist() == [verdict], caption


def test_the_auroc_is_the_share_of_pairs_in_the_right_order():
    confidences = np.array([0.9, 0.8, 0.8, 0.1])
    supported = np.array([True, True, False, False])
    assert score_confidences(confidences, supported)["confidence AUROC"] == 0.875  # of 4, half one
    assert score_confidences(confidences, ~supported)["confidence AUROC"] == 0.125


@pytest.mark.parametrize("verdict", [True, False])
def test_without_captions_of_both_kinds_the_auroc_is_that_of_chance(verdict):
    scores = score_confidences(np.array([0.25, 0.75]), np.array([verdict] * 2))
    assert scores["confidence AUROC"] == 0.5


def test_the_calibration_error_is_the_mean_distance_of_confidence_and_share_in_ten_bins():
    confidences = np.repeat([0.2, 0.7], 50)
    supported = np.arange(100) % 2 == 0  # half of each bin
    assert score_confidences(confidences, supported)["calibration error"] == pytest.approx(0.25)
    bins = find_reliability(confidences, supported)
    assert [number for _, _, number in bins] == [10] * 10
    assert [round(confidence, 6) for confidence, _, _ in bins] == [0.2] * 5 + [0.7] * 5
    assert [share for _, share, _ in bins] == [0.5] * 10


def test_fewer_captions_than_bins_have_a_bin_each():
    bins = find_reliability(np.array([0.75, 0.25]), np.array([True, False]))
    assert bins == [(0.25, 0.0, 1), (0.75, 1.0, 1)]


def test_the_memory_of_the_auroc_grows_with_the_captions_not_with_their_pairs():
    confidences = np.random.default_rng(0).random(20_000)
    tracemalloc.start()
    try:
        score_confidences(confidences, confidences > 0.5)
        assert tracemalloc.get_traced_memory()[1] < 20e6  # all pairs: 100 million
    finally:
        tracemalloc.stop()
