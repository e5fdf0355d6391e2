"""What a sampled caption is worth in self-critical training: its CIDEr-D and its BLEU-4.

The first is the same number as that of the `pycocoevalcap` package (a test holds them equal), which
weighs words by the very references that it is given at once, whereas training asks for one caption
at a time. The second is smoothed, as a single caption wants it.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from math import exp, log, sqrt

_LONGEST_NGRAM = 4
# In bigrams: how forgiving CIDEr-D is of another length than the reference's.
_LENGTH_DEVIATION = 6.0

Tokens = Sequence[Hashable]
_NGramWeights = list[dict[tuple, float]]  # of each n, from 1 up


class Reward:
    """CIDEr-D plus `bleu_weight` times BLEU-4, against fixed references."""

    def __init__(self, references: Mapping[str, Sequence[Tokens]], bleu_weight: float):
        """`references`: image name -> tokenised captions."""
        self._cider = Cider(references)
        self._bleu = Bleu(references)
        self._bleu_weight = bleu_weight

    def __call__(self, image_name: str, caption: Tokens) -> float:
        """The reward of one caption of one of the images."""
        cider = self._cider(image_name, caption)
        return cider + self._bleu_weight * self._bleu(image_name, caption)


class Cider:
    """CIDEr-D (Vedantam et al., 2015) against fixed references, from 0 to 10."""

    def __init__(self, references: Mapping[str, Sequence[Tokens]]):
        """`references`: image name -> tokenised captions. How telling an n-gram is follows from the
        number of images whose references hold it."""
        counts = {name: [_ngrams(one) for one in of] for name, of in references.items()}
        self._images_with = Counter(ngram for of in counts.values() for ngram in set().union(*of))
        self._log_images = log(max(len(references), 1))
        self._references = {
            name: [self._weigh(ngrams) for ngrams in of] for name, of in counts.items()
        }

    def __call__(self, image_name: str, caption: Tokens) -> float:
        """The score of one caption of one of the images."""
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
        """TF-IDF weights and their norm for each n, and the length in bigrams, as the package
        measures it."""
        weights: _NGramWeights = [{} for _ in range(_LONGEST_NGRAM)]
        for ngram, count in ngrams.items():
            idf = self._log_images - log(max(1, self._images_with[ngram]))
            weights[len(ngram) - 1][ngram] = count * idf
        norms = [sqrt(sum(weight**2 for weight in of_n.values())) for of_n in weights]
        length = sum(count for ngram, count in ngrams.items() if len(ngram) == 2)
        return weights, norms, length


class Bleu:
    """BLEU-4 of single captions (Papineni et al., 2002) against fixed references, from 0 to 1. Of
    n-grams longer than a word, one more is counted as found and as said (Lin and Och, 2004), or
    most captions would be worth nothing."""

    def __init__(self, references: Mapping[str, Sequence[Tokens]]):
        """`references`: image name -> tokenised captions."""
        self._most = {}  # of each n-gram, how often a single reference says it
        for name, of_image in references.items():
            self._most[name] = Counter()
            for reference in of_image:
                self._most[name] |= _ngrams(reference)
        self._lengths = {name: sorted(map(len, of)) for name, of in references.items()}

    def __call__(self, image_name: str, caption: Tokens) -> float:
        """The score of one caption of one of the images."""
        if not caption:
            return 0.0
        most, length = self._most[image_name], len(caption)
        found = [0] * _LONGEST_NGRAM
        for ngram, count in _ngrams(caption).items():
            found[len(ngram) - 1] += min(count, most[ngram])
        if not found[0]:
            return 0.0
        log_precision = log(found[0] / length)
        for n in range(2, _LONGEST_NGRAM + 1):
            said = max(length - n + 1, 0)
            log_precision += log((found[n - 1] + 1) / (said + 1))
        closest = min(self._lengths[image_name], key=lambda other: abs(other - length))
        return exp(log_precision / _LONGEST_NGRAM + min(0.0, 1 - closest / length))


def _ngrams(tokens: Tokens) -> Counter:
    tokens = tuple(tokens)
    return Counter(
        tokens[start : start + n]
        for n in range(1, _LONGEST_NGRAM + 1)
        for start in range(len(tokens) - n + 1)
    )
