"""The scores of a caption model on the development images."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from captioning.data.vocabulary import Vocabulary
from captioning.evaluation.evaluate import evaluate
from captioning.export.keras_to_openvino import to_decoder
from captioning.inference.networks import Decoder
from captioning.models.caption_model import build_caption_model
from captioning.settings import TrainingSettings
from captioning.training.batches import Features
from captioning.training.training_data import TrainingData


class Validator:
    """Scores a model after each epoch, in float32, as it will be used, whatever the precision of
    the training."""

    def __init__(self, data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings):
        self._data = data
        self._model = build_caption_model(len(vocabulary), data.feature_width, settings)
        self._decoder = to_decoder(self._model, vocabulary, data.longest_caption)

    def score(self, model: keras.Model, features: Features | None = None) -> dict[str, float]:
        """CIDEr and BLEU-4 of the model with its present weights; on `features` by image name, if
        an encoder that learns has changed those of the data."""
        self._model.set_weights(model.get_weights())
        features = self._data.features if features is None else features
        return _score(self._decoder, features, self._data.references)


def validate(model: keras.Model, data: TrainingData, vocabulary: Vocabulary) -> dict[str, float]:
    """CIDEr and BLEU-4 of a model as it is."""
    decoder = to_decoder(model, vocabulary, data.longest_caption)
    return _score(decoder, data.features, data.references)


def _score(
    decoder: Decoder,
    features: Mapping[str, np.ndarray],
    references: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    _, scores = evaluate(decoder, features, references, meteor=False)
    return {f"development {name}": scores[name] for name in ("CIDEr", "BLEU-4")}
