"""Computes how much each word of a caption attends to each cell of the feature map.

A decoder with attention returns the weights itself. For other decoders they are computed by
occlusion (Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014): a cell
has as much weight as the word's log-probability falls without it. For drawing the weights, see
`captioning.output.attention_figure`.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import isqrt

import numpy as np

from captioning.data.vocabulary import clean_caption
from captioning.errors import UserError
from captioning.inference.decoder import Decoder

ATTENTION, OCCLUSION = "attention", "occlusion"


@dataclass(frozen=True)
class AttentionMaps:
    """`weights` (words, cells) float32, from 0 to 1, which sum to 1 for each of the `words`, and
    the `method` that computed them: "attention" or "occlusion"."""

    words: tuple[str, ...]
    weights: np.ndarray
    method: str

    @property
    def maps(self) -> np.ndarray:
        """The weights as square maps (words, rows, columns). Raises UserError if the number of
        cells is not a square."""
        words, cells = self.weights.shape
        side = isqrt(cells)
        if side**2 != cells:
            raise UserError(
                f"Expected a square feature map, such as 10 x 10 cells, got {cells} cells. Use an "
                "encoder for square images."
            )
        return self.weights.reshape(words, side, side)


def compute_attention(decoder: Decoder, features: np.ndarray, caption: str) -> AttentionMaps:
    """Returns the attention of each word of `caption` to the feature map (cells, feature_width) of
    an image. The caption may come from anywhere: the decoder scores it word by word. Raises
    UserError for a caption without words."""
    words = tuple(clean_caption(caption).split())
    if not words:
        raise UserError(f"Expected a caption of one word or more, got {caption!r}.")
    word_ids = decoder.vocabulary.encode(" ".join(words))[:-1]  # without the end
    log_probs, weights = _score_words(decoder, features[None], word_ids)
    if weights is not None:
        return AttentionMaps(words, weights[0], ATTENTION)
    return AttentionMaps(words, _occlude(decoder, features, word_ids, log_probs[0]), OCCLUSION)


def _occlude(
    decoder: Decoder, features: np.ndarray, word_ids: list[int], log_probs: np.ndarray
) -> np.ndarray:
    """Returns weights (words, cells), in proportion to how much the `log_probs` (words,) fall
    without each cell."""
    if len(features) < 2:
        raise UserError(
            "Expected a feature map of 2 cells or more for occlusion, got 1. Use feature maps that "
            "are not pooled."
        )
    without_cell = np.stack([np.delete(features, cell, axis=0) for cell in range(len(features))])
    log_probs_without, _ = _score_words(decoder, without_cell, word_ids)  # (cells, words)
    losses = (log_probs - log_probs_without).T.clip(0)  # (words, cells)
    totals = losses.sum(axis=1, keepdims=True)
    uniform = np.full_like(losses, 1 / losses.shape[1])  # for a word that depends on no cell
    return np.divide(losses, totals, out=uniform, where=totals > 0)


def _score_words(
    decoder: Decoder, features: np.ndarray, word_ids: list[int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Takes feature maps (images, cells, feature_width) and the ids of a caption, with START as the
    first. Returns the log-probability of each word (images, words) and the decoder's attention
    weights (images, words, cells), or None."""
    image_context = decoder.prefill(features)
    state = decoder.initial_state(len(features))
    log_probs, weights = [], []
    for last_id, word_id in pairwise(word_ids):
        last_ids = np.full((len(features), 1), last_id)
        next_log_probs, state, attention = decoder.step_with_attention(
            last_ids, state, image_context
        )
        log_probs.append(next_log_probs[:, 0, word_id])
        if attention is not None:
            weights.append(attention[:, 0])
    return np.stack(log_probs, axis=1), np.stack(weights, axis=1) if weights else None
