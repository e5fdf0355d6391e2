"""A model in training in, the scores of its captions for the development images out."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from captioning.data.vocabulary import Vocabulary
from captioning.evaluation.evaluate import evaluate
from captioning.export.keras_to_openvino import to_decoder
from captioning.inference.networks import Decoder
from captioning.models.caption_model import build_caption_model
from captioning.settings import TrainingSettings
from captioning.training.training_data import TrainingData


class Validator:
    """What an epoch is judged by: the scores in float32, as the model will be used, in whatever
    precision it is trained."""

    def __init__(self, data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings):
        self._data = data
        self._model = build_caption_model(len(vocabulary), data.feature_width, settings)
        self._decoder = to_decoder(self._model, vocabulary, data.longest_caption)

    def of(
        self, model: keras.Model, features: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, float]:
        """CIDEr and BLEU-4 of the model as it is now; of `features` by image name, if an encoder
        that learns sees others now than those of the data."""
        self._model.set_weights(model.get_weights())
        features = self._data.features if features is None else features
        return _scores(self._decoder, features, self._data.references)


def validate(model: keras.Model, data: TrainingData, vocabulary: Vocabulary) -> dict[str, float]:
    """CIDEr and BLEU-4 of a model, as it is."""
    decoder = to_decoder(model, vocabulary, data.longest_caption)
    return _scores(decoder, data.features, data.references)


def _scores(
    decoder: Decoder,
    features: Mapping[str, np.ndarray],
    references: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    _, scores = evaluate(decoder, features, references, meteor=False)
    return {f"development {name}": scores[name] for name in ("CIDEr", "BLEU-4")}
