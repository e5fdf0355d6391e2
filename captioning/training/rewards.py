"""Computes the rewards of generated captions in self-critical training, from CIDEr-D, BLEU-4 and
the content words that the references support.

CIDEr-D equals that of the `pycocoevalcap` package (a test compares them). The package scores a
whole corpus at once; this module scores the captions of one image at a time against fixed
references. BLEU-4 is smoothed, because most captions share no four words in a row with a reference.

The references are stored as arrays with a number for each word. Their n-grams are counted each time
captions of the image are scored: to store all n-grams would take a hundred times the memory.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import chain, count
from math import log
from typing import NamedTuple

import numpy as np

from captioning.data.compact_captions import CompactCaptions
from captioning.data.vocabulary import Vocabulary
from captioning.evaluation.metrics import find_stems
from captioning.inference.confidence import NO_CONTENT

_LENGTHS = 1, 2, 3, 4  # of the n-grams, in words
_LENGTH_DEVIATION = 6.0  # in bigrams; a larger one makes differences in length cost less

# An n-gram of the words a, b, c is the number (a * factor + b) * factor + c, modulo 2^64. The
# probability that any two of 100 million n-grams have the same number is below 1 in 1,000.
_FACTOR = np.uint64(0x9E3779B97F4A7C15)

Tokens = Sequence[Hashable]


class Reward:
    """Scores captions by CIDEr-D plus `bleu_weight` times BLEU-4 against fixed references, plus
    their `support`."""

    def __init__(
        self,
        captions: Mapping[str, Iterable[Tokens]],
        bleu_weight: float,
        support: "Support | None" = None,
    ):
        """`captions`: image name -> tokenised references."""
        self._references = References(captions)
        self._cider = Cider(self._references)
        self._bleu_weight = bleu_weight
        self._support = support

    def __call__(self, image_name: str, captions: Sequence[Tokens]) -> np.ndarray:
        """Returns the rewards (captions,) float of captions of an image. Raises KeyError if it has
        no references."""
        counts = self._references.count_ngrams(image_name, captions)
        rewards = self._cider(counts) + self._bleu_weight * score_bleu(counts)
        if self._support:
            rewards += self._support(image_name, captions)
        return rewards


class NGramCounts(NamedTuple):
    """The number of times that each n-gram occurs in some captions of an image, and in its
    references."""

    ngrams: np.ndarray  # (n-grams,) uint64, each once, in order
    has_length: np.ndarray  # (n-grams, lengths) float, 1 in the column of the length, else 0
    captions: np.ndarray  # (captions, n-grams) float
    references: np.ndarray  # (references, n-grams) float


class References:
    """The reference captions of all images, with a number for each different token."""

    def __init__(self, captions: Mapping[str, Iterable[Tokens]]):
        """`captions`: image name -> tokenised captions, which are read once."""
        # Token -> number, from 1: with a word 0, some pairs of words would equal one word.
        self._numbers = defaultdict(count(1).__next__)
        self._captions = CompactCaptions(
            (image_name, map(self._number, image_captions))
            for image_name, image_captions in captions.items()
        )

    def count_ngrams(self, image_name: str, captions: Sequence[Tokens]) -> NGramCounts:
        """Counts the n-grams in captions of an image and in its references. Raises KeyError for an
        unknown image."""
        references = self._captions[image_name]
        numbered = [*map(self._number, captions), *references]
        ngrams_by_length = [_find_ngrams(numbered, length) for length in _LENGTHS]
        ngrams, rows = map(np.concatenate, zip(*ngrams_by_length, strict=True))
        lengths = np.repeat(_LENGTHS, [len(rows) for _, rows in ngrams_by_length])
        ngrams, first, columns = np.unique(ngrams, return_index=True, return_inverse=True)
        shape = len(numbered), len(ngrams)
        cells = np.ravel_multi_index((rows, columns), shape)
        counts = np.bincount(cells, minlength=np.prod(shape)).reshape(shape).astype(float)
        has_length = np.equal.outer(lengths[first], _LENGTHS).astype(float)
        return NGramCounts(ngrams, has_length, *np.split(counts, [len(captions)]))

    def count_images(self) -> tuple[int, np.ndarray, np.ndarray]:
        """Returns the number of images, the n-grams (n-grams,) uint64 that the references of two or
        more images contain, in order, and the number of these images (n-grams,)."""
        found, counted = [], []
        for length in _LENGTHS:  # one after the other, in a quarter of the memory
            ngrams = np.concatenate(
                [
                    np.unique(_find_ngrams(captions, length)[0])
                    for captions in self._captions.values()
                ]
            )
            ngrams.sort()  # an n-gram of k images follows itself k - 1 times
            ngrams, repetitions = np.unique(
                ngrams[1:][ngrams[1:] == ngrams[:-1]], return_counts=True
            )
            found.append(ngrams)
            counted.append(repetitions + 1)
        ngrams, images = np.concatenate(found), np.concatenate(counted)
        order = np.argsort(ngrams)
        return len(self._captions), ngrams[order], images[order]

    def _number(self, caption: Tokens) -> np.ndarray:
        return np.array([self._numbers[token] for token in caption], "int32")


class Cider:
    """Scores captions by CIDEr-D (Vedantam et al., 2015), from 0 to 10. The number of images whose
    references contain an n-gram determines its weight."""

    def __init__(self, references: References):
        images, ngrams, images_with = references.count_images()
        self._log_images = log(images)
        # Entry 0 is not an n-gram: it stands for all n-grams that occur in fewer than two images.
        self._ngrams = np.insert(ngrams, 0, 0)
        self._log_images_with = np.log(np.insert(images_with, 0, 1))

    def __call__(self, counts: NGramCounts) -> np.ndarray:
        """Returns the scores (captions,) float of captions whose n-grams are counted."""
        idf = self._inverse_document_frequencies(counts.ngrams)
        weights = (counts.captions * idf)[:, None]  # (captions, 1, n-grams)
        reference_weights = counts.references * idf  # (references, n-grams)
        common = np.minimum(weights, reference_weights) * reference_weights @ counts.has_length
        norms = np.sqrt(weights**2 @ counts.has_length)  # (captions, 1, lengths)
        norms = norms * np.sqrt(reference_weights**2 @ counts.has_length)
        similarities = common / np.where(norms > 0, norms, 1)  # (captions, references, lengths)
        bigrams, reference_bigrams = (
            rows @ counts.has_length[:, 1] for rows in (counts.captions, counts.references)
        )
        deviations = (bigrams[:, None] - reference_bigrams) / _LENGTH_DEVIATION
        similarities = similarities.mean(axis=-1) * np.exp(-(deviations**2) / 2)
        return 10 * similarities.mean(axis=-1)

    def _inverse_document_frequencies(self, ngrams: np.ndarray) -> np.ndarray:
        """Returns log(images / images with the n-gram) of each n-gram."""
        places = np.searchsorted(self._ngrams, ngrams, side="right") - 1
        is_found = self._ngrams[places] == ngrams
        return self._log_images - np.where(is_found, self._log_images_with[places], 0)


def score_bleu(counts: NGramCounts) -> np.ndarray:
    """Returns the BLEU-4 (captions,) of captions (Papineni et al., 2002), from 0 to 1. For n-grams
    longer than a word, matches and total are raised by one (Lin and Och, 2004); otherwise most
    captions would score 0."""
    max_counts = counts.references.max(axis=0)
    matches = np.minimum(counts.captions, max_counts) @ counts.has_length
    totals = counts.captions @ counts.has_length  # (captions, lengths)
    raised = np.greater(_LENGTHS, 1)
    precisions = (matches + raised) / np.maximum(totals + raised, 1)  # an empty caption has 0
    words = totals[:, 0]
    reference_words = np.sort(counts.references @ counts.has_length[:, 0])
    closest = reference_words[np.abs(reference_words - words[:, None]).argmin(axis=1)]
    brevity = np.exp(np.minimum(0, 1 - closest / np.maximum(words, 1)))
    return precisions.prod(axis=1) ** (1 / len(_LENGTHS)) * brevity


class Support:
    """Scores captions by their content words: `weight` times the difference between the number of
    those that a reference contains and the number of those that none contains. CIDEr and BLEU
    forgive a false word in a likely phrase. The list of words without content is English."""

    def __init__(
        self, captions: Mapping[str, Iterable[Sequence[int]]], stems: np.ndarray, weight: float
    ):
        """`captions`: image name -> word ids of the references; `stems` (vocabulary,): see
        `number_stems`."""
        self._stems = stems
        self._weight = weight
        self._references = {
            image_name: self._find_stems(chain.from_iterable(image_captions))
            for image_name, image_captions in captions.items()
        }

    def __call__(self, image_name: str, captions: Sequence[Sequence[int]]) -> np.ndarray:
        """Returns the scores (captions,) float of captions, as word ids, of an image. A repeated
        word counts once. Raises KeyError if the image has no references."""
        references = self._references[image_name]
        stems_by_caption = map(self._find_stems, captions)
        differences = [
            2 * np.isin(stems, references).sum() - len(stems) for stems in stems_by_caption
        ]
        return self._weight * np.array(differences)

    def _find_stems(self, word_ids: Iterable[int]) -> np.ndarray:
        stems = np.unique(self._stems[np.fromiter(word_ids, int)])
        return stems[stems != NO_CONTENT]


def number_stems(vocabulary: Vocabulary) -> np.ndarray:
    """Returns the number of the stem of each word (vocabulary,) int32, which words like "dog" and
    "dogs" share; -1 for a word without content, such as "the"."""
    numbers = defaultdict(count().__next__)
    stems = find_stems(vocabulary)
    return np.array([NO_CONTENT if stem is None else numbers[stem] for stem in stems], "int32")


def _find_ngrams(captions: Sequence[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the n-grams of `length` words in all captions (n-grams,) uint64, and the number of
    the caption that contains each. A caption is an array of numbers (words,)."""
    words = np.concatenate(captions).astype("uint64")
    caption_of_word = np.repeat(np.arange(len(captions)), [len(caption) for caption in captions])
    ngrams = words
    for offset in range(1, length):
        ngrams = ngrams[:-1] * _FACTOR + words[offset:]
    first, last = caption_of_word[: len(ngrams)], caption_of_word[length - 1 :]
    return ngrams[first == last], last[first == last]
