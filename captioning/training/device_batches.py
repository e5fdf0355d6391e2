"""Batches in the shapes that the devices of a training need: equal shares of rows, and few lengths.

XLA, with which JAX computes, compiles a step anew for every shape of a batch. Therefore captions
are padded to one of few lengths, and the last batch to the rows of the others. What is added has
weight 0, and so changes neither the loss nor its gradient.
"""

from collections.abc import Callable

import keras
import numpy as np

from captioning.models.caption_model import uses_xla
from captioning.training.devices import num_devices, num_processes, process_number

# Captions are padded to a multiple of so many words. For the merge model on Flickr8k, that is a
# seventh more to compute, and six shapes instead of nineteen.
LENGTH_STEP = 4

Batch = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]  # see `CaptionBatches`


class DeviceBatches(keras.utils.PyDataset):
    """Batches as those of `batches`, a `CaptionBatches` or `DistillationBatches` of `batch_size`
    rows, in shapes for the devices. In several processes, an item holds the rows of this one."""

    def __init__(self, batches: keras.utils.PyDataset, batch_size: int):
        # With a strategy of TensorFlow, Keras draws a batch before the first epoch, and its threads
        # would go on to take batches from that epoch. Without threads, each iteration has its own.
        workers = batches.workers if uses_xla() else 1
        super().__init__(workers=workers, max_queue_size=batches.max_queue_size)
        self._batches = batches
        self._fit = fit_devices(batch_size)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        return self._fit(self._batches[index])

    def on_epoch_end(self) -> None:
        self._batches.on_epoch_end()


def for_devices(batches: keras.utils.PyDataset, batch_size: int) -> keras.utils.PyDataset:
    """Returns `batches` of `batch_size` rows in shapes for the devices: see `DeviceBatches`. On one
    device without XLA, they are `batches` themselves."""
    if num_devices() == 1 and not uses_xla():
        return batches
    return DeviceBatches(batches, batch_size)


def fit_devices(batch_size: int) -> Callable[[Batch], Batch]:
    """Returns a function that pads a batch of at most `batch_size` rows for the devices, and keeps
    the rows of this process. On one device without XLA, it returns the batch unchanged."""
    if num_devices() == 1 and not uses_xla():
        return lambda batch: batch
    # Keras knows the devices in this thread only; others draw the batches.
    rows = _round_up(batch_size, num_devices())
    length_step = LENGTH_STEP if uses_xla() else 1
    share = rows // num_processes()
    own = slice(process_number() * share, (process_number() + 1) * share)

    def fit(batch: Batch) -> Batch:
        inputs, targets, weights = pad_batch(batch, rows, length_step)
        inputs = {name: array[own] for name, array in inputs.items()}
        return inputs, targets[own], weights[own]

    return fit


def pad_batch(batch: Batch, rows: int, length_step: int) -> Batch:
    """Pads a batch with rows and words of weight 0, to `rows` rows and a multiple of `length_step`
    words. Targets may have a last axis more, with the probability of each word."""
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
        by_caption = array.reshape(images, captions, length, *array.shape[2:])
        padded = pad(by_caption, added_rows, 0, added_words)
        return padded.reshape(rows, -1, *array.shape[2:])  # (rows, captions * length, ...)

    inputs = {
        "features": pad(inputs["features"], added_rows),
        "words": pad(inputs["words"], added_rows, 0, added_words),
    }
    return inputs, pad_positions(targets), pad_positions(weights)


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
