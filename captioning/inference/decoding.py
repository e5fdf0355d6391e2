"""Finds the captions of images with a decoder: guides the search, chooses among its hypotheses, and
adds the confidence."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np

from captioning.errors import UserError
from captioning.inference.beam_search import Hypothesis, ImageContext
from captioning.inference.consensus import rank_by_consensus
from captioning.inference.guidance import Guide
from captioning.settings import WIDEST_BEAM, SearchSettings

if TYPE_CHECKING:
    from captioning.inference.decoder import Decoder


@dataclass(frozen=True, slots=True)  # there may be very many captions
class Caption:
    """A caption. `log_prob`: the natural logarithm of its probability, the end token included;
    `confidence`: from 0 to 1, see `captioning.inference.confidence`; None if the model has none."""

    text: str
    log_prob: float
    confidence: float | None = None

    def __str__(self) -> str:
        return self.text


def find_captions(
    decoder: Decoder, batches: Iterable[np.ndarray], search: SearchSettings, num_captions: int
) -> Iterator[list[Caption]]:
    """Yields for each image the `num_captions` best captions, from `batches` of feature maps
    (images, cells, feature_width): see `Decoder.captions`."""
    if not isinstance(num_captions, Integral) or not 1 <= num_captions <= WIDEST_BEAM:
        raise UserError(
            f"Expected num_captions to be a whole number from 1 to {WIDEST_BEAM}, got "
            f"{num_captions!r}."
        )
    search = replace(search, beam_width=max(search.beam_width, num_captions))
    if search.decoding == "consensus" and decoder.confidence:
        guide = Guide(decoder.confidence, decoder.longest_caption)
    else:
        guide = None
    return _Finder(decoder, search, guide, num_captions).find(batches)


class _Finder:
    """Finds the best captions of many images. The search takes several at a time, and is guided if
    there is a `guide`."""

    def __init__(
        self, decoder: Decoder, search: SearchSettings, guide: Guide | None, num_captions: int
    ):
        self._decoder = decoder
        self._search = search
        self._guide = guide
        self._num_captions = num_captions
        # Of the images in the search, in order: pooled features and, with a guide, word scores.
        self._waiting: deque[tuple[np.ndarray, np.ndarray | None]] = deque()

    def find(self, batches: Iterable[np.ndarray]) -> Iterator[list[Caption]]:
        """Yields the captions of each image, best first."""
        contexts = self._contexts(batches)
        for hypotheses in self._decoder.search_contexts(contexts, self._search, self._guide):
            pooled, word_scores = self._waiting.popleft()
            ranked = self._rank(hypotheses, word_scores)[: self._num_captions]
            yield [self._to_caption(hypothesis, pooled) for hypothesis in ranked]

    def _contexts(self, batches: Iterable[np.ndarray]) -> Iterator[ImageContext]:
        """Yields the context of each image for the search."""
        decoder = self._decoder
        for batch in batches:
            all_pooled = batch.mean(axis=1, dtype="float32")  # (images, feature_width)
            for *context, pooled in zip(*decoder.prefill(batch), all_pooled, strict=True):
                word_scores = None
                if self._guide:
                    word_scores = decoder.confidence.score_words(pooled)
                    context = self._guide.extend_context(context, word_scores)
                self._waiting.append((pooled, word_scores))
                yield tuple(context)

    def _rank(
        self, hypotheses: list[Hypothesis], word_scores: np.ndarray | None
    ) -> list[Hypothesis]:
        """Returns the hypotheses without guidance, in the order of `SearchSettings.decoding`."""
        if self._guide:
            hypotheses = [self._guide.without_guidance(h, word_scores) for h in hypotheses]
        if self._search.decoding == "beam":
            return hypotheses
        rarities, normalisation = self._decoder.rarities, self._search.length_normalisation
        return rank_by_consensus(hypotheses, rarities, normalisation, word_scores)

    def _to_caption(self, hypothesis: Hypothesis, pooled: np.ndarray) -> Caption:
        ids, log_prob = hypothesis.ids, hypothesis.log_prob
        confidence = self._decoder.confidence and self._decoder.confidence(ids, log_prob, pooled)
        return Caption(self._decoder.vocabulary.decode(ids), log_prob, confidence)
