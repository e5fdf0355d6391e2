"""A model in training in, the scores of its captions for the development images out."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from captioning.evaluation import evaluate
from captioning.export import as_decoder
from captioning.inference import Decoder
from captioning.model import build_caption_model
from captioning.settings import TrainingSettings
from captioning.text import Vocabulary
from captioning.training_data import TrainingData


class DevelopmentScores:
    """What an epoch is judged by: the scores in float32, as the model will be used, in whatever
    precision it is trained."""

    def __init__(self, data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings):
        self._data = data
        self._model = build_caption_model(len(vocabulary), data.feature_width, settings)
        self._decoder = as_decoder(self._model, vocabulary, data.longest_caption)

    def of(
        self, model: keras.Model, features: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, float]:
        """CIDEr and BLEU-4 of the model as it is now; of `features` by image name, if an encoder
        that learns sees others now than those of the data."""
        self._model.set_weights(model.get_weights())
        features = self._data.features if features is None else features
        return _scores(self._decoder, features, self._data.references)


def score_on_development(
    model: keras.Model, data: TrainingData, vocabulary: Vocabulary
) -> dict[str, float]:
    """CIDEr and BLEU-4 of a model, as it is."""
    decoder = as_decoder(model, vocabulary, data.longest_caption)
    return _scores(decoder, data.features, data.references)


def _scores(
    decoder: Decoder,
    features: Mapping[str, np.ndarray],
    references: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    _, scores = evaluate(decoder, features, references, meteor=False)
    return {f"development {name}": scores[name] for name in ("CIDEr", "BLEU-4")}
