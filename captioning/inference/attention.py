"""How much each word of a caption attends to each cell of the feature map.

A decoder with attention gives the weights itself. For any other they are found by occlusion (Zeiler
and Fergus, "Visualizing and understanding convolutional networks", 2014): without one cell at a
time, how much less probable does the word become? Not about drawing: see
`captioning.output.attention_figure`.
"""

from dataclasses import dataclass
from math import isqrt

import numpy as np

from captioning.data.vocabulary import clean_caption
from captioning.inference.networks import Decoder

ATTENTION, OCCLUSION = "attention", "occlusion"


@dataclass(frozen=True)
class AttentionMaps:
    """`weights` (words, cells) float32, from 0 to 1, which sum to 1 for each of the `words`, and
    the `method` that found them: "attention" or "occlusion"."""

    words: tuple[str, ...]
    weights: np.ndarray
    method: str

    @property
    def maps(self) -> np.ndarray:
        """The weights as maps (words, rows, columns), square and row by row. Raises ValueError if
        the number of cells is no square."""
        words, cells = self.weights.shape
        side = isqrt(cells)
        if side**2 != cells:
            raise ValueError(
                f"Expected a square feature map, such as 10 x 10 cells, got {cells} cells. Use an "
                "encoder for square images."
            )
        return self.weights.reshape(words, side, side)


def compute_attention(decoder: Decoder, features: np.ndarray, caption: str) -> AttentionMaps:
    """The attention of each word of `caption` to the feature map (cells, feature_width) of an
    image. Any caption will do: the decoder scores it word by word. Raises ValueError for a caption
    without words."""
    words = tuple(clean_caption(caption).split())
    if not words:
        raise ValueError(f"Expected a caption of one word or more, got {caption!r}.")
    word_ids = decoder.vocabulary.encode(" ".join(words))[:-1]  # without the end
    log_probs, weights = _score_words(decoder, features[None], word_ids)
    if weights is not None:
        return AttentionMaps(words, weights[0], ATTENTION)
    return AttentionMaps(words, _occlude(decoder, features, word_ids, log_probs[0]), OCCLUSION)


def _occlude(
    decoder: Decoder, features: np.ndarray, word_ids: list[int], log_probs: np.ndarray
) -> np.ndarray:
    """Weights (words, cells): by how much the `log_probs` (words,) fall without each cell."""
    if len(features) < 2:
        raise ValueError("Expected a feature map of 2 cells or more for occlusion, got 1.")
    without_cell = np.stack([np.delete(features, cell, axis=0) for cell in range(len(features))])
    log_probs_without, _ = _score_words(decoder, without_cell, word_ids)  # (cells, words)
    losses = (log_probs - log_probs_without).T.clip(0)  # (words, cells)
    totals = losses.sum(axis=1, keepdims=True)
    uniform = np.full_like(losses, 1 / losses.shape[1])  # for a word that depends on no cell
    return np.divide(losses, totals, out=uniform, where=totals > 0)


def _score_words(
    decoder: Decoder, features: np.ndarray, word_ids: list[int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """For feature maps (images, cells, feature_width) and one caption's ids, the start in front:
    the log-probability of each word (images, words) and the decoder's attention weights (images,
    words, cells), or None."""
    image_context = decoder.prefill(features)
    state = decoder.initial_state(len(features))
    log_probs, weights = [], []
    for last_id, word_id in zip(word_ids, word_ids[1:], strict=False):
        last_ids = np.full((len(features), 1), last_id)
        next_log_probs, state, attention = decoder.step_with_attention(
            last_ids, state, image_context
        )
        log_probs.append(next_log_probs[:, 0, word_id])
        if attention is not None:
            weights.append(attention[:, 0])
    return np.stack(log_probs, axis=1), np.stack(weights, axis=1) if weights else None
