"""Knowledge distillation (Hinton et al., 2015): a student learns from the predictions of a teacher.

The student learns word by word (Kim and Rush, 2016). A caption contains one word at each position;
the teacher's probabilities also show which other words fit, and how well. The teacher predicts each
caption of each variant once, not in every epoch.
"""

from collections.abc import Sequence

import keras
import numpy as np

from captioning.data.vocabulary import PADDING
from captioning.models.caption_model import build_caption_model, build_ensemble
from captioning.settings import TrainingSettings
from captioning.training.batches import CaptionBatches, Variant

TOP_K = 64  # words at each position, which have nine tenths of the probability
_BATCH_SIZE = 32  # images in a prediction of the teacher

SoftTargets = tuple[np.ndarray, np.ndarray]  # ids and probabilities of the most probable words


class DistillationBatches(keras.utils.PyDataset):
    """Batches as `CaptionBatches`, with soft targets: the teacher's probabilities (images, captions
    * length, vocabulary_size) float32.

    They are exact for the `TOP_K` most probable words; the other words share the rest evenly. The
    soft targets of Flickr8k's captions take 90 MB of memory per variant.
    """

    def __init__(self, batches: CaptionBatches, teacher: keras.Model):
        """`teacher`: see `build_teacher`. It makes all its predictions here."""
        super().__init__(workers=batches.workers, max_queue_size=batches.max_queue_size)
        self._batches = batches
        self._vocabulary_size = teacher.output.shape[-1]
        self._soft_targets = [
            _predict_soft_targets(teacher, variant) for variant in batches.variants
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int):
        inputs, targets, weights = self._batches[index]
        probabilities = np.zeros((*targets.shape, self._vocabulary_size), "float32")
        for row, (image_name, variant) in enumerate(self._batches.images_in(index)):
            soft_targets = self._soft_targets[variant][image_name]
            probabilities[row, targets[row] != PADDING] = self._spread(*soft_targets)
        return inputs, probabilities, weights

    def on_epoch_end(self) -> None:
        self._batches.on_epoch_end()

    def _spread(self, word_ids: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Returns the probabilities of all words (positions, vocabulary_size) from those of the top
        words (positions, TOP_K)."""
        probabilities = probabilities.astype("float32")
        rest = np.maximum(1 - probabilities.sum(axis=-1, keepdims=True), 0)
        other_words = max(self._vocabulary_size - word_ids.shape[-1], 1)
        spread = np.repeat(rest / other_words, self._vocabulary_size, axis=-1)
        np.put_along_axis(spread, word_ids.astype("int64"), probabilities, axis=-1)
        return spread


def _predict_soft_targets(teacher: keras.Model, variant: Variant) -> dict[str, SoftTargets]:
    """Returns image name -> soft targets of its captions, one caption after the other, without
    padding."""
    batches = CaptionBatches([variant], _BATCH_SIZE)
    soft_targets = {}
    for index in range(len(batches)):
        inputs, targets, _ = batches[index]
        probabilities = teacher.predict_on_batch(inputs)
        for row, (image_name, _) in enumerate(batches.images_in(index)):
            soft_targets[image_name] = _top_k(probabilities[row, targets[row] != PADDING])
    return soft_targets


def _top_k(probabilities: np.ndarray) -> SoftTargets:
    """Returns ids and probabilities of the top words (positions, TOP_K), in no order, from the
    probabilities of all words (positions, vocabulary_size)."""
    vocabulary_size = probabilities.shape[-1]
    count = min(TOP_K, vocabulary_size)
    word_ids = np.argpartition(-probabilities, count - 1, axis=-1)[:, :count]
    top = np.take_along_axis(probabilities, word_ids, axis=-1)
    return word_ids.astype(np.min_scalar_type(vocabulary_size)), top.astype("float16")


def build_teacher(
    members: Sequence[keras.Model], settings: TrainingSettings, precision: str
) -> keras.Model:
    """Builds a model with the inputs of a caption model. It outputs the mean of the members'
    probabilities of the next word (images, captions * length, vocabulary_size) float32, and
    computes in `precision`, a dtype policy of Keras."""
    copies = []
    for member in members:
        feature_width, vocabulary_size = member.input["features"].shape[-1], member.output.shape[-1]
        copies.append(build_caption_model(vocabulary_size, feature_width, settings, precision))
        copies[-1].set_weights(member.get_weights())
    logits = build_ensemble(copies)
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(logits.output)
    teacher = keras.Model(logits.input, probabilities, name="teacher")
    teacher.compile(jit_compile=False)  # XLA would compile for each length of a batch
    return teacher
