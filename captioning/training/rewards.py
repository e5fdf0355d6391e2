"""Computes the reward of a generated caption in self-critical training: its CIDEr-D and its BLEU-4.

CIDEr-D equals that of the `pycocoevalcap` package (a test compares them). The package scores a
whole corpus at once; this module scores one caption at a time against fixed references. BLEU-4 is
smoothed, because most captions share no four words in a row with a reference.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from math import exp, log, sqrt

_LONGEST_NGRAM = 4
_LENGTH_DEVIATION = 6.0  # in bigrams; a larger one makes differences in length cost less

Tokens = Sequence[Hashable]
_NGramWeights = list[dict[tuple, float]]  # for each n from 1: n-gram -> weight


class Reward:
    """Scores captions by CIDEr-D plus `bleu_weight` times BLEU-4, against fixed references."""

    def __init__(self, references: Mapping[str, Sequence[Tokens]], bleu_weight: float):
        """`references`: image name -> tokenised captions."""
        self._cider = Cider(references)
        self._bleu = Bleu(references)
        self._bleu_weight = bleu_weight

    def __call__(self, image_name: str, caption: Tokens) -> float:
        """Returns the reward of a caption of one of the images."""
        cider = self._cider(image_name, caption)
        return cider + self._bleu_weight * self._bleu(image_name, caption)


class Cider:
    """Scores captions by CIDEr-D (Vedantam et al., 2015), from 0 to 10, against fixed
    references."""

    def __init__(self, references: Mapping[str, Sequence[Tokens]]):
        """`references`: image name -> tokenised captions. The number of images whose references
        contain an n-gram determines its weight."""
        counts = {
            image_name: [_ngrams(caption) for caption in captions]
            for image_name, captions in references.items()
        }
        self._images_with = Counter(
            ngram for image_counts in counts.values() for ngram in set().union(*image_counts)
        )
        self._log_images = log(max(len(references), 1))
        self._references = {
            image_name: [self._weigh(ngrams) for ngrams in image_counts]
            for image_name, image_counts in counts.items()
        }

    def __call__(self, image_name: str, caption: Tokens) -> float:
        """Returns the score of a caption of one of the images."""
        weights, norms, length = self._weigh(_ngrams(caption))
        references = self._references[image_name]
        total = 0.0
        for reference_weights, reference_norms, reference_length in references:
            similarity = 0.0
            for n in range(_LONGEST_NGRAM):
                if norms[n] and reference_norms[n]:
                    reference = reference_weights[n]
                    common = sum(
                        min(weight, reference[ngram]) * reference[ngram]
                        for ngram, weight in weights[n].items()
                        if ngram in reference
                    )
                    similarity += common / (norms[n] * reference_norms[n])
            total += similarity * exp(-(((length - reference_length) / _LENGTH_DEVIATION) ** 2) / 2)
        return 10 * total / len(references) / _LONGEST_NGRAM

    def _weigh(self, ngrams: Counter) -> tuple[_NGramWeights, list[float], int]:
        """Returns the TF-IDF weights and their norm for each n, and the length in bigrams, as in
        the package."""
        weights: _NGramWeights = [{} for _ in range(_LONGEST_NGRAM)]
        for ngram, count in ngrams.items():
            idf = self._log_images - log(max(1, self._images_with[ngram]))
            weights[len(ngram) - 1][ngram] = count * idf
        norms = [sqrt(sum(weight**2 for weight in n_weights.values())) for n_weights in weights]
        length = sum(count for ngram, count in ngrams.items() if len(ngram) == 2)
        return weights, norms, length


class Bleu:
    """Scores captions by BLEU-4 (Papineni et al., 2002), from 0 to 1, against fixed references. For
    n-grams longer than a word, matches and total are raised by one (Lin and Och, 2004); otherwise
    most captions would score 0."""

    def __init__(self, references: Mapping[str, Sequence[Tokens]]):
        """`references`: image name -> tokenised captions."""
        self._max_counts = {}  # image name -> n-gram -> its largest count in one reference
        self._lengths = {}
        for image_name, captions in references.items():
            self._max_counts[image_name] = Counter()
            for caption in captions:
                self._max_counts[image_name] |= _ngrams(caption)
            self._lengths[image_name] = sorted(map(len, captions))

    def __call__(self, image_name: str, caption: Tokens) -> float:
        """Returns the score of a caption of one of the images."""
        if not caption:
            return 0.0
        max_counts, length = self._max_counts[image_name], len(caption)
        matches = [0] * _LONGEST_NGRAM
        for ngram, count in _ngrams(caption).items():
            matches[len(ngram) - 1] += min(count, max_counts[ngram])
        if not matches[0]:
            return 0.0
        log_precision = log(matches[0] / length)
        for n in range(2, _LONGEST_NGRAM + 1):
            total = max(length - n + 1, 0)
            log_precision += log((matches[n - 1] + 1) / (total + 1))
        closest = min(self._lengths[image_name], key=lambda reference: abs(reference - length))
        return exp(log_precision / _LONGEST_NGRAM + min(0.0, 1 - closest / length))


def _ngrams(tokens: Tokens) -> Counter:
    tokens = tuple(tokens)
    return Counter(
        tokens[start : start + n]
        for n in range(1, _LONGEST_NGRAM + 1)
        for start in range(len(tokens) - n + 1)
    )
