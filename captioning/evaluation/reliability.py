"""Scores the confidence in captions: see `captioning.inference.confidence`.

The target stands for the verdict of a person, which only a few captions have: a caption is
*supported* if more than half of its content words occur in the reference captions of its image.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from captioning.evaluation.metrics import find_content_words
from captioning.evaluation.ptb_tokenizer import tokenize

BINS = 10  # of the calibration error


def find_supported(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """Returns whether each of the `captions` (image name -> caption) is supported by the
    `references` of its image: bool (captions,). One without content words is not."""
    supported = []
    for image_name, caption in captions.items():
        words = content_words_of(caption)
        reference_words = set(chain.from_iterable(map(content_words_of, references[image_name])))
        supported.append(2 * sum(word in reference_words for word in words) > len(words))
    return np.array(supported)


def score_confidences(confidences: np.ndarray, supported: np.ndarray) -> dict[str, float]:
    """Scores `confidences` (captions,) from 0 to 1 against `supported` (captions,) bool.

    "confidence AUROC" is the probability that a supported caption has a higher confidence than one
    that is not; it is 0.5, as by chance, if all are supported or none is. "calibration error" is
    the expected one (Guo et al., 2017) with `BINS` bins of equally many captions: the mean
    difference between the confidence of a bin and its share of supported captions.
    """
    pairs = confidences[supported][:, None] - confidences[~supported]
    auroc = ((pairs > 0) + (pairs == 0) / 2).mean() if pairs.size else 0.5
    differences = [
        abs(confidence - share) * number
        for confidence, share, number in find_reliability(confidences, supported)
    ]
    error = sum(differences) / len(confidences)
    return {"confidence AUROC": float(auroc), "calibration error": float(error)}


def find_reliability(
    confidences: np.ndarray, supported: np.ndarray
) -> list[tuple[float, float, int]]:
    """Returns the mean confidence, the share of supported captions and the number of captions in
    each of `BINS` bins, from the lowest confidence to the highest. Leaves out empty bins."""
    bins = np.array_split(np.argsort(confidences, kind="stable"), BINS)
    return [
        (float(confidences[members].mean()), float(supported[members].mean()), len(members))
        for members in bins
        if len(members)
    ]


def content_words_of(caption: str) -> list[str]:
    """Returns the content words of a caption as written: see `find_content_words`."""
    return find_content_words(" ".join(tokenize(caption)))
