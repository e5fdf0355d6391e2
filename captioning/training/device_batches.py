"""Batches in the shapes that the devices of a training need: equal shares of rows, and few lengths.

XLA, with which JAX computes, compiles a step again for every shape of a batch. Therefore captions
are padded to one of a few lengths, and the last batch to the number of rows of the others. The
padding has weight 0, so it changes neither the loss nor its gradient.
"""

from collections.abc import Callable

import keras
import numpy as np

from captioning.models.backend import uses_xla
from captioning.training.batches import CaptionBatches
from captioning.training.devices import num_devices, num_processes, process_number
from captioning.training.distillation import DistillationBatches

# In words: captions are padded to a multiple of this length. For the merge model on Flickr8k, that
# is a seventh more to compute, and there are six shapes of batches instead of nineteen.
_LENGTH_STEP = 4

Batch = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]  # see `CaptionBatches`


class DeviceBatches(keras.utils.PyDataset):
    """The batches of a `CaptionBatches` or `DistillationBatches`, in shapes for the devices. In
    several processes, an item holds only the rows of this process."""

    def __init__(self, batches: CaptionBatches | DistillationBatches):
        # Keras draws a batch before the first epoch. Its threads would keep those that they have
        # drawn besides, and mix them into the epochs. With one worker, it starts none of them.
        super().__init__(workers=1)
        self._batches = batches
        self._shape = make_shaper(batches.batch_size)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        return self._shape(self._batches[index])

    def on_epoch_end(self) -> None:
        self._batches.on_epoch_end()


def for_devices(batches: CaptionBatches | DistillationBatches) -> keras.utils.PyDataset:
    """Returns the same batches in shapes for the devices: see `DeviceBatches`. On one device
    without XLA, returns `batches` themselves."""
    return DeviceBatches(batches) if _needs_shapes() else batches


def make_shaper(batch_size: int) -> Callable[[Batch], Batch]:
    """Returns a function that pads a batch of at most `batch_size` rows for the devices, and keeps
    only the rows of this process. On one device without XLA, it returns the batch unchanged."""
    if not _needs_shapes():
        return lambda batch: batch
    # Keras knows the devices in this thread only; others draw the batches.
    rows = _round_up(batch_size, num_devices())
    length_step = _LENGTH_STEP if uses_xla() else 1
    share = rows // num_processes()
    own = slice(process_number() * share, (process_number() + 1) * share)

    def shape(batch: Batch) -> Batch:
        inputs, targets, weights = pad_batch(batch, rows, length_step)
        inputs = {name: array[own] for name, array in inputs.items()}
        return inputs, targets[own], weights[own]

    return shape


def pad_batch(batch: Batch, rows: int, length_step: int) -> Batch:
    """Pads a batch with rows and words of weight 0. Returns a batch of `rows` rows, whose length in
    words is a multiple of `length_step`. Soft targets have one more axis than targets, the
    vocabulary, which stays as it is."""
    inputs, targets, weights = batch
    images, captions, length = inputs["words"].shape
    added_rows, added_words = rows - images, _round_up(length, length_step) - length
    if not added_rows and not added_words:
        return batch

    def pad(array: np.ndarray, *added: int) -> np.ndarray:
        """Adds zeros, the ids of padding, at the end of the first axes."""
        added += (0,) * (array.ndim - len(added))
        return np.pad(array, [(0, number) for number in added])

    def pad_positions(array: np.ndarray) -> np.ndarray:
        """Pads an array (images, captions * length, ...)."""
        by_caption = array.reshape(images, captions, length, *array.shape[2:])
        padded = pad(by_caption, added_rows, 0, added_words)
        return padded.reshape(rows, -1, *array.shape[2:])  # (rows, captions * length, ...)

    inputs = {
        "features": pad(inputs["features"], added_rows),
        "words": pad(inputs["words"], added_rows, 0, added_words),
    }
    return inputs, pad_positions(targets), pad_positions(weights)


def _needs_shapes() -> bool:
    """Returns whether batches must have special shapes: for several devices, or for XLA."""
    return num_devices() > 1 or uses_xla()


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
