"""The confidence in a caption: the probability that a person would not call it wrong.

A logistic regression of two signals estimates it. The decoder gives the first, the mean
log-probability of a word. The second comes from another model: for each content word, a linear
regression on the pooled features predicts how many people would mention it. The signal is the mean
over the content words of the caption. `captioning.evaluation.calibration` fits both regressions.
The predictions also guide the search (`captioning.inference.guidance`) and help to choose a
caption (`captioning.inference.consensus`).
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path

import numpy as np

from captioning.errors import UserError
from captioning.files import write_atomically

CONFIDENCE = "confidence.json"  # beside the networks
NO_CONTENT = -1  # the row of a word that is left out, such as "the"

_VERSION = 3  # of the file; earlier versions were fitted on captions of another search
# Square root of the share of people who would mention a word with the score 0. Chosen on Flickr8k's
# development split: docs/findings.md.
_NEUTRAL = 0.25

_MAX_BYTES = 2**27
_LARGEST = 10**6  # products of larger numbers may overflow


@dataclass(frozen=True)
class Confidence:
    """The fitted regressions. `decoder`: the fingerprint of the decoder whose captions they were
    fitted on; `coefficients` (3,): the intercept, and the weights of the two signals.

    `word_rows` (vocabulary,) int holds the row of each word id in the regression of words, or
    `NO_CONTENT`. A row of `weights` (rows, feature_width) and one of the `biases` (rows,) predict
    the square root of the share of people who would mention the word, from the square roots of the
    pooled features.
    """

    decoder: str
    coefficients: np.ndarray
    word_rows: np.ndarray
    weights: np.ndarray
    biases: np.ndarray

    def __call__(self, ids: Sequence[int], log_prob: float, pooled: np.ndarray) -> float:
        """Returns the confidence, from 0 to 1, in the caption of word `ids` with this `log_prob`,
        of an image with the `pooled` features (feature_width,)."""
        logit = float(self.coefficients @ self.signals(ids, log_prob, pooled))
        return 1 / (1 + exp(-max(logit, -700)))  # exp(710) overflows

    def signals(self, ids: Sequence[int], log_prob: float, pooled: np.ndarray) -> np.ndarray:
        """Returns 1, for the intercept, and the two signals: float (3,)."""
        rows = self.word_rows[list(ids)]
        rows = rows[rows != NO_CONTENT]
        mentioned = self._predict(rows, pooled).mean() if len(rows) else 0
        mean_log_prob = log_prob / (len(ids) + 1)  # the end token counts as a word
        return np.array([1, mean_log_prob, mentioned])

    def score_words(self, pooled: np.ndarray) -> np.ndarray:
        """Returns the score of each word (vocabulary,) float32 for an image with the `pooled`
        features (feature_width,): its predicted mentions, the square root of a share, minus
        `_NEUTRAL`. A word without content has the score 0."""
        scores = self._predict(slice(None), pooled) - _NEUTRAL
        return np.append(scores, np.float32(0))[self.word_rows]  # NO_CONTENT, -1, is the last

    @property
    def is_content(self) -> np.ndarray:
        """Whether each word is a content word: bool (vocabulary,)."""
        return self.word_rows != NO_CONTENT

    def save(self, folder: Path) -> None:
        """Writes `confidence.json` to `folder`, the weights of the words in 8 bits."""
        scales = np.abs(self.weights).max(axis=1) / 127
        scales[scales == 0] = 1  # of the row of rare words
        weights = np.round(self.weights / scales[:, None]).astype(np.int8)
        values = {
            "version": _VERSION,
            "decoder": self.decoder,
            "coefficients": self.coefficients.tolist(),
            "word_rows": self.word_rows.tolist(),
            "scales": scales.tolist(),
            "biases": self.biases.tolist(),
            "weights": b64encode(weights.tobytes()).decode(),
        }
        with write_atomically(folder / CONFIDENCE, "w") as file:
            json.dump(values, file)

    def _predict(self, rows: np.ndarray | slice, pooled: np.ndarray) -> np.ndarray:
        """Returns the predicted square roots of shares, at least 0: (rows,)."""
        inputs = regression_inputs(pooled)
        # The threads of a matrix product (`@`) would slow OpenVINO's down by a fifth.
        predicted = np.einsum("wf,f->w", self.weights[rows], inputs) + self.biases[rows]
        return predicted.clip(0)


def regression_inputs(pooled: np.ndarray) -> np.ndarray:
    """Returns the inputs of the regression of words from pooled features (..., feature_width)."""
    return np.sqrt(pooled.clip(0))


def load_confidence(
    folder: Path, metadata: Mapping[str, str], vocabulary_size: int
) -> Confidence | None:
    """Reads `confidence.json` in `folder`, beside the decoder with this `metadata`. Returns None if
    there is none, or if it was fitted on the captions of another decoder or has another version.
    Raises UserError if it is damaged."""
    path = folder / CONFIDENCE
    if not path.exists():
        return None
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES:,} bytes")
        values = json.loads(path.read_bytes())
        if values["decoder"] != metadata["weights"] or values.get("version") != _VERSION:
            return None
        weights = np.frombuffer(b64decode(values["weights"], validate=True), np.int8)
        weights = weights.reshape(-1, int(metadata["feature_width"]))
        confidence = Confidence(
            metadata["weights"],
            _floats(values["coefficients"], 3),
            np.array(values["word_rows"], np.int32),
            weights * _floats(values["scales"], len(weights))[:, None],
            _floats(values["biases"], len(weights)),
        )
        rows = confidence.word_rows
        if (
            rows.shape != (vocabulary_size,)
            or rows.min() < NO_CONTENT
            or rows.max() >= len(weights)
        ):
            raise ValueError("word_rows that do not fit the vocabulary")
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(
            f"Expected the confidence of a model in {path}, got a damaged file ({error}). Delete "
            "it and run `captioning calibrate`, or fetch it again."
        ) from error
    return confidence


def _floats(values: list[float], length: int) -> np.ndarray:
    """Returns the values as float32. Raises ValueError unless they are `length` numbers of a
    reasonable size."""
    array = np.array(values, float)
    if array.shape != (length,) or not (np.abs(array) < _LARGEST).all():  # NaN is not below it
        raise ValueError(f"expected {length} numbers below {_LARGEST:,}")
    return array.astype("float32")
