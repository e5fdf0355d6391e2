"""The first stage of training: captions that people wrote in, guessed word by word.

Whatever the model would have said, it is told the right word and asked for the next one.
"""

import keras

from captioning.data.vocabulary import Vocabulary
from captioning.inference.openvino_runtime import training_precision
from captioning.models.caption_model import build_caption_model
from captioning.settings import TrainingSettings
from captioning.training.checkpoints import Run
from captioning.training.cross_entropy import run_epochs
from captioning.training.training_data import TrainingData
from captioning.training.validation import Validator

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
    scores = Validator(data, vocabulary, settings)

    def begin() -> keras.Model:
        precision = training_precision()
        return build_caption_model(len(vocabulary), data.feature_width, settings, precision)

    run_epochs(run, STAGE, begin, scores.of, data, vocabulary, settings, teacher)
