import numpy as np
import pytest

from captioning.inference.beam_search import Hypothesis
from captioning.inference.consensus import agreements, rank_by_consensus
from captioning.training.rewards import References, score_bleu

A, B, C, D, E, F, G, H = range(4, 12)
RARITIES = np.ones(12)


def test_a_candidate_that_agrees_with_others_comes_before_a_more_probable_odd_one_out():
    odd = Hypothesis((F, G, H), log_prob=-3.0)
    alike = [Hypothesis((A, B, C), -3.1), Hypothesis((A, B, D), -3.2), Hypothesis((A, B, E), -3.3)]
    assert rank_by_consensus([odd, *alike], RARITIES, 0.0)[0] == alike[0]


def test_a_candidate_far_more_probable_than_all_others_stays_first():
    odd = Hypothesis((F, G, H), log_prob=-3.0)
    alike = [Hypothesis((A, B, C), -20.0), Hypothesis((A, B, D), -20.0)]
    assert rank_by_consensus([odd, *alike], RARITIES, 0.0)[0] == odd


def test_predicted_mentions_raise_or_lower_the_rank_of_a_candidate():
    first, second = Hypothesis((A, B, C), -3.0), Hypothesis((A, B, D), -3.0)
    for better, worse, expected in ((C, D, first), (D, C, second)):
        word_scores = np.zeros(12)
        word_scores[[better, worse]] = [0.2, -0.2]
        assert rank_by_consensus([first, second], RARITIES, 0.0, word_scores)[0] == expected


def test_a_repeated_word_gains_nothing_but_costs_again():
    once, twice = Hypothesis((A, B, C, D), -3.0), Hypothesis((A, B, C, C), -3.0)
    for scores in ((5.0, 1.0), (-5.0, -1.0)):
        word_scores = np.zeros(12)
        word_scores[[C, D]] = scores
        assert rank_by_consensus([twice, once], RARITIES, 0.0, word_scores)[0] == once


def test_one_candidate_and_none_are_returned_as_they_are():
    only = Hypothesis((A, B), -1.0)
    assert rank_by_consensus([only], RARITIES, 0.7) == [only]
    assert rank_by_consensus([], RARITIES, 0.7) == []


def test_a_candidate_agrees_fully_with_itself_and_not_at_all_with_other_words():
    same, other = agreements([[A, B, C, D], [E, F, E, F]], RARITIES)[0]
    assert same == pytest.approx(10 + 10)
    assert other == pytest.approx(0, abs=1e-6)


def test_agreement_by_words_alone_is_their_cosine_weighted_by_rarity():
    rarities = np.zeros(12)
    rarities[[A, B, C]] = [1, 2, 3]
    # One n-gram order of four: A and B with norm sqrt(5), A and C with norm sqrt(10).
    cider = 10 / 4 * 1 / np.sqrt(5 * 10)
    bleu = 10 * (1 / 2 * 1 / 2) ** (1 / 4)  # bigrams 1/2 by smoothing, longer ones 1/1
    assert agreements([[A, B], [A, C]], rarities)[0, 1] == pytest.approx(cider + bleu)


def test_the_bleu_of_agreement_is_that_of_the_reward():
    candidates = [[A, B, C, D, E], [A, B, C], [B, C, D, E, A, F]]
    scores = agreements(candidates, np.zeros(12))  # without rarities CIDEr is 0
    for row, candidate in zip(scores, candidates, strict=True):
        for agreement, reference in zip(row, candidates, strict=True):
            references = References({"image": [reference]})
            (bleu,) = score_bleu(references.count_ngrams("image", [candidate]))
            assert agreement == pytest.approx(10 * bleu)


def test_empty_candidates_have_no_agreement_but_cause_no_error():
    assert np.isfinite(agreements([[], [A]], RARITIES)).all()
