"""Knowledge distillation (Hinton et al., 2015): a student learns from the predictions of a teacher.

The student learns word by word (Kim and Rush, 2016). A caption contains one word at each position;
the teacher's probabilities also show which other words fit, and how well. The teacher predicts each
caption once, from the whole image, not in every epoch and from every crop. Its predictions are kept
on disk.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

import keras
import numpy as np

from captioning.data.vocabulary import PADDING
from captioning.files import name_in_errors
from captioning.models.backend import uses_xla
from captioning.models.caption_model import build_ensemble, rebuild_caption_model
from captioning.settings import TrainingSettings
from captioning.training.batches import CaptionBatches, Variant

TOP_K = 64  # words at each position, which have nine tenths of the probability
_BATCH_SIZE = 32  # images in a prediction of the teacher


class DistillationBatches(keras.utils.PyDataset):
    """Batches as `CaptionBatches`, with probabilities as targets (images, captions * length,
    vocabulary_size) float32. A target is the weighted mean of the teacher's probabilities, the soft
    target, and of the word of the caption, without label smoothing.

    Soft targets are exact for the `TOP_K` most probable words; the other words share the rest
    evenly.
    """

    def __init__(
        self,
        batches: CaptionBatches,
        teacher: keras.Model,
        folder: Path,
        teacher_variants: Sequence[Variant] | None = None,
        soft_target_share: float = 1.0,
    ):
        """The `teacher` (see `build_teacher`) makes all its predictions here, and keeps them in
        `folder`: see `SoftTargets`. It reads the first of the `teacher_variants`, by default those
        of the batches, that is not flipped, and the first that is. `soft_target_share`: the weight
        of the soft target, from 0 to 1."""
        super().__init__(workers=batches.workers, max_queue_size=batches.max_queue_size)
        self.batch_size = batches.batch_size
        self._soft_target_share = soft_target_share
        self._batches = batches
        self._vocabulary_size = teacher.output.shape[-1]
        soft_targets = {}  # by whether the images are flipped
        for variant in teacher_variants or batches.variants:
            if variant.is_flipped not in soft_targets:
                soft_targets[variant.is_flipped] = SoftTargets(teacher, variant, folder)
        self._soft_targets = [soft_targets[variant.is_flipped] for variant in batches.variants]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int):
        inputs, targets, weights = self._batches[index]
        probabilities = np.zeros((*targets.shape, self._vocabulary_size), "float32")
        share = self._soft_target_share
        for row, (image_name, variant) in enumerate(self._batches.images_in(index)):
            positions = np.flatnonzero(targets[row] != PADDING)
            soft_targets = self._soft_targets[variant].read(image_name, len(positions))
            probabilities[row, positions] = share * self._spread(soft_targets)
            probabilities[row, positions, targets[row, positions]] += 1 - share
        return inputs, probabilities, weights

    def on_epoch_end(self) -> None:
        self._batches.on_epoch_end()

    def _spread(self, soft_targets: np.ndarray) -> np.ndarray:
        """Returns the probabilities of all words (positions, vocabulary_size) from the soft targets
        (positions,)."""
        word_ids = soft_targets["ids"]  # (positions, top words)
        probabilities = soft_targets["probabilities"].astype("float32")
        rest = np.maximum(1 - probabilities.sum(axis=-1, keepdims=True), 0)
        other_words = max(self._vocabulary_size - word_ids.shape[-1], 1)
        spread = np.repeat(rest / other_words, self._vocabulary_size, axis=-1)
        np.put_along_axis(spread, word_ids, probabilities, axis=-1)
        return spread


class SoftTargets:
    """The soft targets of all captions of a variant: for each position, the ids and the
    probabilities of the most probable words.

    They are stored in a temporary file without a name, 90 MB for Flickr8k's training captions. The
    operating system deletes it when the program ends, even if it is killed.
    """

    def __init__(self, teacher: keras.Model, variant: Variant, folder: Path):
        """Writes the predictions of the teacher to a file in `folder`."""
        vocabulary_size = teacher.output.shape[-1]
        top_k = min(TOP_K, vocabulary_size)
        id_type = np.min_scalar_type(vocabulary_size)
        dtype = np.dtype([("ids", id_type, top_k), ("probabilities", "float16", top_k)])
        batches = CaptionBatches([variant], _BATCH_SIZE)
        self._starts: dict[str, int] = {}  # image name -> its first position
        with name_in_errors(folder), TemporaryFile(dir=folder) as file:
            for index in range(len(batches)):
                inputs, targets, _ = batches[index]
                probabilities = teacher.predict_on_batch(inputs)
                for row, (image_name, _) in enumerate(batches.images_in(index)):
                    self._starts[image_name] = file.tell() // dtype.itemsize
                    file.write(_top_words(probabilities[row, targets[row] != PADDING], dtype))
            file.flush()
            self._positions = np.memmap(file, dtype, "r")

    def read(self, image_name: str, length: int) -> np.ndarray:
        """Returns the soft targets (length,) of an image. `length`: the number of positions of all
        its captions together, without padding."""
        start = self._starts[image_name]
        return self._positions[start : start + length]


def _top_words(probabilities: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns soft targets (positions,) from the probabilities of all words (positions,
    vocabulary_size). The most probable words of a position are in no particular order."""
    soft_targets = np.empty(len(probabilities), dtype)
    count = soft_targets["ids"].shape[-1]
    soft_targets["ids"] = np.argpartition(-probabilities, count - 1, axis=-1)[:, :count]
    top = np.take_along_axis(probabilities, soft_targets["ids"], axis=-1)
    soft_targets["probabilities"] = top
    return soft_targets


def build_teacher(
    members: Sequence[keras.Model], settings: TrainingSettings, precision: str
) -> keras.Model:
    """Builds a model with the inputs of a caption model. It outputs the mean of the members'
    probabilities of the next word (images, captions * length, vocabulary_size) float32, and
    computes in `precision`, a dtype policy of Keras."""
    logits = build_ensemble(
        [rebuild_caption_model(member, settings, precision) for member in members]
    )
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(logits.output)
    teacher = keras.Model(logits.input, probabilities, name="teacher")
    teacher.compile(jit_compile=uses_xla())
    return teacher
