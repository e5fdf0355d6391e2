"""A model in training in, the scores of its captions for the development images out."""

import keras

from captioning.evaluation import evaluate
from captioning.export import as_decoder
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

    def of(self, model: keras.Model) -> dict[str, float]:
        """CIDEr and BLEU-4 of the model as it is now."""
        self._model.set_weights(model.get_weights())
        _, scores = evaluate(
            self._decoder, self._data.features, self._data.references, meteor=False
        )
        return {f"development {name}": scores[name] for name in ("CIDEr", "BLEU-4")}
