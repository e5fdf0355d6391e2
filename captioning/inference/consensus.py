"""Consensus decoding: of the candidates of a beam search, the one that agrees best with the others.

Minimum Bayes risk decoding (Kumar and Byrne, 2004). The candidates, weighted by their
length-normalised probabilities without guidance, stand for the captions that people might write.
CIDEr and BLEU-4 against these estimate how well a candidate would score. A second model predicts
which words people would mention: these raise the score of a candidate, and other content words
lower it. The same predictions have guided the search already. Works on ids and arrays only, like
the beam search.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np

from captioning.inference.beam_search import Hypothesis

_LONGEST_NGRAM = 4
_CIDER_LENGTH_DEVIATION = 6.0  # words: how much another length costs, as in CIDEr-D
# Chosen on Flickr8k's development split: docs/findings.md.
_BLEU_WEIGHT = 10.0  # makes BLEU-4, from 0 to 1, count as much as CIDEr, from 0 to 10
_LOG_PROB_WEIGHT = 1.5
_WORD_WEIGHT = 3.0  # of the sum of the word scores

_NGramCounts = np.ndarray  # (candidates, distinct n-grams)


def rank_by_consensus(
    hypotheses: Sequence[Hypothesis],
    rarities: np.ndarray,
    length_normalisation: float,
    word_scores: np.ndarray | None = None,
) -> list[Hypothesis]:
    """Returns the hypotheses, best first. The score of a hypothesis is its mean agreement with all
    of them, each weighted by its probability, plus `_LOG_PROB_WEIGHT` times its own
    log-probability. All log-probabilities are first divided by length ** `length_normalisation`.
    With `word_scores` (vocabulary,), see `Confidence.score_words`, the weighted sum of the scores
    of its words is added: a positive score counts once for each word, a negative one every time.

    `rarities` (vocabulary,) holds the weight of each word id in CIDEr, its inverse document
    frequency there.
    """
    if len(hypotheses) < 2:
        return list(hypotheses)
    candidates = [hypothesis.ids for hypothesis in hypotheses]
    log_probs = np.array([hypothesis.score(length_normalisation) for hypothesis in hypotheses])
    probabilities = np.exp(log_probs - log_probs.max())
    probabilities /= probabilities.sum()
    agreement = agreements(candidates, rarities) @ probabilities  # (candidates,)
    scores = agreement + _LOG_PROB_WEIGHT * log_probs
    if word_scores is not None:
        scores += _WORD_WEIGHT * np.array([_sum_scores(word_scores, ids) for ids in candidates])
    order = np.argsort(-scores, kind="stable")
    return [hypotheses[number] for number in order]


def _sum_scores(word_scores: np.ndarray, candidate: Sequence[int]) -> float:
    """The sum of the scores of a candidate's words. A score above 0 counts only where its word
    occurs first."""
    scores = word_scores[list(candidate)]
    is_repeated = np.ones(len(candidate), bool)
    is_repeated[np.unique(candidate, return_index=True)[1]] = False  # where words occur first
    return scores.sum(where=~(is_repeated & (scores > 0)))


def agreements(candidates: Sequence[Sequence[int]], rarities: np.ndarray) -> np.ndarray:
    """CIDEr + 10 BLEU-4 of each candidate, a sequence of word ids, with each candidate as its only
    reference: float (candidates, references), from 0 to 20. CIDEr has the penalty of CIDEr-D for
    another length, but does not clip counts."""
    lengths = np.array([len(candidate) for candidate in candidates])
    cider = np.zeros((len(candidates), len(candidates)))
    log_bleu = np.zeros_like(cider)
    for n in range(1, _LONGEST_NGRAM + 1):
        counts, weights = _count_ngrams(candidates, n, rarities)
        cider += _cosines(counts * weights)
        log_bleu += np.log(_precisions(counts, np.maximum(lengths - n + 1, 0), smoothing=n > 1))
    length_differences = lengths[:, None] - lengths  # (candidates, references)
    cider *= np.exp(-((length_differences / _CIDER_LENGTH_DEVIATION) ** 2) / 2)
    brevity = np.minimum(0, 1 - lengths / np.maximum(lengths, 1)[:, None])
    bleu = np.exp(log_bleu / _LONGEST_NGRAM + brevity)
    return 10 * cider / _LONGEST_NGRAM + _BLEU_WEIGHT * bleu


def _count_ngrams(
    candidates: Sequence[Sequence[int]], n: int, rarities: np.ndarray
) -> tuple[_NGramCounts, np.ndarray]:
    """How often each candidate holds each n-gram, and the weight of each n-gram, the sum of the
    rarities of its words: (n-grams,)."""
    counters = [
        Counter(tuple(candidate[start : start + n]) for start in range(len(candidate) - n + 1))
        for candidate in candidates
    ]
    columns = {ngram: column for column, ngram in enumerate(dict.fromkeys(chain(*counters)))}
    counts = np.zeros((len(candidates), len(columns)))
    for row, counter in zip(counts, counters, strict=True):
        row[[columns[ngram] for ngram in counter]] = list(counter.values())
    ngrams = np.array(list(columns), int).reshape(-1, n)
    return counts, rarities[ngrams].sum(axis=1)


def _cosines(vectors: np.ndarray) -> np.ndarray:
    """The cosine between all pairs of rows, 0 for a row of zeros."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return vectors @ vectors.T


def _precisions(counts: _NGramCounts, totals: np.ndarray, smoothing: bool) -> np.ndarray:
    """The share of a candidate's n-grams that a reference holds, too: (candidates, references).
    `smoothing` raises matches and total by one (Lin and Och, 2004), or one missing order would make
    BLEU 0. `totals` (candidates,): the number of n-grams of each candidate."""
    matches = np.minimum(counts[:, None], counts).sum(axis=2)
    tiny = np.finfo(float).tiny  # the logarithm of no match at all
    return np.maximum((matches + smoothing) / np.maximum(totals + smoothing, 1)[:, None], tiny)
