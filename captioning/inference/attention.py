"""What each word of a caption looked at: a feature map and a sentence in, a weight a cell out.

A decoder with attention says it itself. Of any other it is found by occlusion (Zeiler and Fergus,
"Visualizing and understanding convolutional networks", 2014): cells are left out of the feature
map, one at a time, and a word has looked at those without which it would be less probable. Not
about drawing: see `captioning.output.attention_figure`.
"""

from dataclasses import dataclass
from math import isqrt

import numpy as np

from captioning.data.vocabulary import clean_caption
from captioning.inference.networks import Decoder

ATTENTION, OCCLUSION = "attention", "occlusion"


@dataclass(frozen=True)
class AttentionMaps:
    """Where the words of a caption looked: `weights` (words, cells) float32, not negative, of which
    those of a word sum to 1, and the `method`, "attention" or "occlusion", that found them."""

    words: tuple[str, ...]
    weights: np.ndarray
    method: str

    @property
    def maps(self) -> np.ndarray:
        """The weights in place (words, rows, columns): cells are those of a square, row by row.
        Raises ValueError where they are not."""
        words, cells = self.weights.shape
        side = isqrt(cells)
        if side**2 != cells:
            raise ValueError(
                "What words looked at is shown on a square feature map, of 10 x 10 cells for "
                f"instance. Received: {cells} cells. Take an encoder for square images."
            )
        return self.weights.reshape(words, side, side)


def compute_attention(decoder: Decoder, features: np.ndarray, caption: str) -> AttentionMaps:
    """Where the words of `caption` look in an image of this feature map (cells, feature_width).

    The caption may be anyone's: the decoder hears it word by word, as if it had said it.
    """
    words = tuple(clean_caption(caption).split())
    word_ids = decoder.vocabulary.encode(" ".join(words))[:-1]  # the end looks at nothing
    log_probs, weights = _hear(decoder, features[None], word_ids)
    if weights is not None:
        return AttentionMaps(words, weights[0], ATTENTION)
    if len(features) < 2:
        raise ValueError("Occlusion wants a feature map of 2 cells or more. Received: 1.")
    without_cell = np.stack([np.delete(features, cell, axis=0) for cell in range(len(features))])
    log_probs_without, _ = _hear(decoder, without_cell, word_ids)  # (cells, words)
    return AttentionMaps(words, _shares((log_probs - log_probs_without).T.clip(0)), OCCLUSION)


def _hear(
    decoder: Decoder, features: np.ndarray, word_ids: list[int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Of a caption's ids, the start in front, and feature maps (images, cells, feature_width): the
    log-probability of each word after the start (images, words), and the decoder's attention, if
    it has any (images, words, cells)."""
    images, cells, _ = features.shape
    seen, state = decoder.prefill(features), decoder.initial_state(images)
    log_probs = np.zeros((images, len(word_ids) - 1), "float32")
    weights = np.zeros((images, len(word_ids) - 1, cells), "float32")
    attention = None
    for position, (last_id, word_id) in enumerate(zip(word_ids, word_ids[1:], strict=False)):
        last_ids = np.full((images, 1), last_id)
        of_words, state, attention = decoder.step_with_attention(last_ids, state, seen)
        log_probs[:, position] = of_words[:, 0, word_id]
        if attention is not None:
            weights[:, position] = attention[:, 0]
    return log_probs, None if attention is None else weights


def _shares(weights: np.ndarray) -> np.ndarray:
    """Weights (words, cells) with the sum 1 a word: all alike where a word has none."""
    sums = weights.sum(axis=1, keepdims=True)
    alike = np.full_like(weights, 1 / weights.shape[1])
    return np.divide(weights, sums, out=alike, where=sums > 0)
