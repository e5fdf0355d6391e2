"""Finds the captions of images with a decoder: guides the search, ranks its hypotheses, and adds
the confidence."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np

from captioning.errors import UserError
from captioning.inference.beam_search import ImageContext
from captioning.inference.consensus import rank_by_consensus
from captioning.inference.decoder import Decoder, FeatureMaps, in_batches
from captioning.inference.guidance import Guide
from captioning.settings import WIDEST_BEAM, SearchSettings


@dataclass(frozen=True, slots=True)  # there may be very many captions
class Caption:
    """A caption. `log_prob`: the natural logarithm of its probability, the end token included;
    `confidence`: from 0 to 1, see `captioning.inference.confidence`; None if the model has none."""

    text: str
    log_prob: float
    confidence: float | None = None

    def __str__(self) -> str:
        return self.text


def find_best_captions(
    decoder: Decoder, features: FeatureMaps, search: SearchSettings = SearchSettings()
) -> list[Caption]:
    """Returns the best caption of each image."""
    return [best for best, *_ in find_captions(decoder, features, search, num_captions=1)]


def find_captions(
    decoder: Decoder, features: FeatureMaps, search: SearchSettings, num_captions: int
) -> Iterator[list[Caption]]:
    """Yields for each image the `num_captions` best captions, best first; fewer if the search finds
    fewer. Widens a beam that is narrower than `num_captions`. Raises UserError unless
    `num_captions` is from 1 to `WIDEST_BEAM`."""
    if not isinstance(num_captions, Integral) or not 1 <= num_captions <= WIDEST_BEAM:
        raise UserError(
            f"Expected num_captions to be a whole number from 1 to {WIDEST_BEAM}, got "
            f"{num_captions!r}."
        )
    search = replace(search, beam_width=max(search.beam_width, num_captions))
    return _find_captions(decoder, features, search, num_captions)


def _find_captions(
    decoder: Decoder, features: FeatureMaps, search: SearchSettings, num_captions: int
) -> Iterator[list[Caption]]:
    confidence = decoder.confidence
    guide = None
    if confidence and search.decoding == "consensus":
        guide = Guide(confidence, decoder.longest_caption)
    # Of the images in the search, in order: pooled features and, with a guide, word scores.
    waiting: deque[tuple[np.ndarray, np.ndarray | None]] = deque()

    def contexts() -> Iterator[ImageContext]:
        for batch in in_batches(features):
            all_pooled = batch.mean(axis=1, dtype="float32")  # (images, feature_width)
            for *context, pooled in zip(*decoder.prefill(batch), all_pooled, strict=True):
                word_scores = confidence.score_words(pooled) if guide else None
                waiting.append((pooled, word_scores))
                yield guide.extend_context(context, word_scores) if guide else tuple(context)

    for hypotheses in decoder.search_contexts(contexts(), search, guide):
        pooled, word_scores = waiting.popleft()
        if guide:
            hypotheses = [guide.without_guidance(h, word_scores) for h in hypotheses]
        if search.decoding == "consensus":
            normalisation = search.length_normalisation
            hypotheses = rank_by_consensus(hypotheses, decoder.rarities, normalisation, word_scores)
        yield [
            Caption(
                decoder.vocabulary.decode(hypothesis.ids),
                hypothesis.log_prob,
                confidence and confidence(hypothesis.ids, hypothesis.log_prob, pooled),
            )
            for hypothesis in hypotheses[:num_captions]
        ]
