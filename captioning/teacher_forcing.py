"""The first stage of training: captions that people wrote in, guessed word by word.

Whatever the model would have said, it is told the right word and asked for the next one.
"""

import keras

from captioning.development import DevelopmentScores
from captioning.epochs import run_epochs
from captioning.model import build_caption_model
from captioning.processor import fastest_precision
from captioning.run import Run
from captioning.settings import TrainingSettings
from captioning.text import Vocabulary
from captioning.training_data import TrainingData

STAGE = "teacher forcing"


def learn(
    run: Run,
    data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    teacher: keras.Model | None = None,
) -> None:
    """Runs the epochs of this stage that are left. With a `teacher` (see `build_teacher`), its
    probabilities are the targets, of the development captions too."""
    scores = DevelopmentScores(data, vocabulary, settings)

    def begin() -> keras.Model:
        precision = fastest_precision()
        return build_caption_model(len(vocabulary), data.feature_width, settings, precision)

    run_epochs(run, STAGE, begin, scores.of, data, vocabulary, settings, teacher)
