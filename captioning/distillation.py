"""What a teacher thinks of the next word, as the target of another model.

Knowledge distillation (Hinton et al., 2015), word by word (Kim and Rush, 2016): people wrote one
word at each place, the teacher knows which others would have done, and how well.
"""

from collections.abc import Sequence

import keras

from captioning.batches import CaptionBatches
from captioning.ensemble import build_ensemble
from captioning.model import build_caption_model
from captioning.settings import TrainingSettings


class TaughtBatches(keras.utils.PyDataset):
    """Batches of captions with the teacher's opinion in the place of their words: as
    `CaptionBatches`, but targets are probabilities (images, captions, length, vocabulary_size)."""

    def __init__(self, batches: CaptionBatches, teacher: keras.Model, **kwargs):
        super().__init__(**kwargs)
        self._batches = batches
        self._teacher = teacher

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int):
        inputs, _, weights = self._batches[index]
        return inputs, self._teacher.predict_on_batch(inputs), weights

    def on_epoch_end(self) -> None:
        self._batches.on_epoch_end()


def build_teacher(
    members: Sequence[keras.Model], settings: TrainingSettings, precision: str
) -> keras.Model:
    """Features and words to the mean of the members' probabilities of the next words, computed in
    `precision`, a dtype policy of Keras. Inputs are those of a caption model."""
    copies = []
    for member in members:
        width, words = member.input["features"].shape[-1], member.output.shape[-1]
        copies.append(build_caption_model(words, width, settings, precision))
        copies[-1].set_weights(member.get_weights())
    logits = build_ensemble(copies)
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(logits.output)
    teacher = keras.Model(logits.input, probabilities, name="teacher")
    teacher.compile(jit_compile=False)  # as for the learner: batches differ in length
    return teacher
