"""Scores caption models on the development images."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from captioning.data.vocabulary import Vocabulary
from captioning.evaluation.evaluate import evaluate
from captioning.export.keras_to_openvino import to_decoder
from captioning.inference.decoder import Decoder
from captioning.models.caption_model import build_caption_model
from captioning.settings import TrainingSettings
from captioning.training.batches import Features
from captioning.training.devices import from_first_process, in_this_process
from captioning.training.training_data import TrainingData


class Validator:
    """Scores a model after each epoch. It computes in float32, as the finished model does, whatever
    the precision of the training."""

    def __init__(self, data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings):
        self._data = data
        with in_this_process():
            self._model = build_caption_model(len(vocabulary), data.feature_width, settings)
            self._decoder = to_decoder(self._model, vocabulary, data.longest_caption)

    def score(self, model: keras.Model, features: Features | None = None) -> dict[str, float]:
        """Returns CIDEr, from 0 to 10, and BLEU-4, from 0 to 1, of the model with its current
        weights. `features` (by image name) replace those of the data while the encoder learns."""
        self._model.set_weights(model.get_weights())
        features = self._data.features if features is None else features
        return _score(self._decoder, features, self._data.references)


def validate(model: keras.Model, data: TrainingData, vocabulary: Vocabulary) -> dict[str, float]:
    """Returns CIDEr, from 0 to 10, and BLEU-4, from 0 to 1, of a model in its own precision."""
    decoder = to_decoder(model, vocabulary, data.longest_caption)
    return _score(decoder, data.features, data.references)


def _score(
    decoder: Decoder,
    features: Mapping[str, np.ndarray],
    references: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    scores = evaluate(decoder, features, references)
    names = ("CIDEr", "BLEU-4")
    return from_first_process({f"development {name}": scores[name] for name in names})
