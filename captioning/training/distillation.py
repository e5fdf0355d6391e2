"""What a teacher thinks of the next word, as the target of another model.

Knowledge distillation (Hinton et al., 2015), word by word (Kim and Rush, 2016): people wrote one
word at each place, the teacher knows which others would have done, and how well. It is asked once
about each caption in each view, not anew in every epoch.
"""

from collections.abc import Sequence

import keras
import numpy as np

from captioning.data.vocabulary import PADDING
from captioning.models.caption_model import build_caption_model
from captioning.models.ensemble import build_ensemble
from captioning.settings import TrainingSettings
from captioning.training.batches import CaptionBatches, EncodedCaptions, Features

TOP_K = 64  # words that are remembered at each place: nine tenths of what a teacher believes
_IMAGES = 32  # that a teacher is asked about at once


class DistillationBatches(keras.utils.PyDataset):
    """Batches of captions with the teacher's opinion in the place of their words: as
    `CaptionBatches`, but targets are probabilities (images, captions, length, vocabulary_size).

    They are the teacher's own for the `TOP_K` words; the others share evenly what is left. So
    the opinions about all captions of Flickr8k take 90 MB of memory a view."""

    def __init__(self, batches: CaptionBatches, teacher: keras.Model):
        """`teacher` as of `build_teacher`; it is asked here, and not needed any more."""
        super().__init__(workers=batches.workers, max_queue_size=batches.max_queue_size)
        self._batches = batches
        self._vocabulary_size = teacher.output.shape[-1]
        self._opinions = [_ask(teacher, view) for view in batches.views]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int):
        inputs, targets, weights = self._batches[index]
        probabilities = np.zeros((*targets.shape, self._vocabulary_size), "float32")
        for row, (image_name, view) in enumerate(self._batches.images_of(index)):
            opinion = self._opinions[view][image_name]
            probabilities[row][targets[row] != PADDING] = self._spread(*opinion)
        return inputs, probabilities, weights

    def on_epoch_end(self) -> None:
        self._batches.on_epoch_end()

    def _spread(self, words: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities of the likeliest words (places, TOP_K) -> of all (places,
        vocabulary_size)."""
        probabilities = probabilities.astype("float32")
        left = np.maximum(1 - probabilities.sum(axis=-1, keepdims=True), 0)
        others = max(self._vocabulary_size - words.shape[-1], 1)
        spread = np.repeat(left / others, self._vocabulary_size, axis=-1)
        np.put_along_axis(spread, words.astype("int64"), probabilities, axis=-1)
        return spread


def _ask(
    teacher: keras.Model, view: tuple[EncodedCaptions, Features]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Image name -> the teacher's likeliest words, in no order, and their probabilities, each
    (places, TOP_K) or as many as there are; the places of an image are those of its captions,
    one after the other."""
    batches = CaptionBatches([view], _IMAGES)
    opinions = {}
    for index in range(len(batches)):
        inputs, targets, _ = batches[index]
        probabilities = teacher.predict_on_batch(inputs)
        of_images = zip(batches.images_of(index), probabilities, targets, strict=True)
        for (image_name, _), of_image, target in of_images:
            opinions[image_name] = _likeliest(of_image[target != PADDING])
    return opinions


def _likeliest(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places, vocabulary_size) -> words and probabilities, both small."""
    vocabulary_size = probabilities.shape[-1]
    count = min(TOP_K, vocabulary_size)
    words = np.argpartition(-probabilities, count - 1, axis=-1)[:, :count]
    chosen = np.take_along_axis(probabilities, words, axis=-1)
    return words.astype(np.min_scalar_type(vocabulary_size)), chosen.astype("float16")


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
