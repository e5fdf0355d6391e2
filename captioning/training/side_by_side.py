"""A model in, the same one out, of which each of two cores computes half of the batch.

TensorFlow divides every operation among all cores, which then wait for each other at its end, some
thousands of times a step. Halves of a batch have nothing to wait for before the step ends, if an
operation takes one thread: a step of training takes a twelfth to a sixth less. More cores were not
measured. They, other backends, and whoever has a GPU compute batches whole.
"""

from contextlib import suppress

import keras
from keras import ops

from captioning.inference.processor import cores


def one_thread_an_operation() -> None:
    """Has TensorFlow run each operation of this process on one thread, where batches are computed
    in halves. It heeds this only before it has computed anything; later, nothing changes, and
    halves bring less."""
    if _parts() > 1:
        import tensorflow as tf

        with suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(1)


class SideBySide(keras.Model):
    """The network itself, its weights, optimizer and loss included, for training and for asking.

    In training it wants sample weights, and its outputs are a list of those of the parts, whose
    losses are summed: made for losses that sum, without regularisers, and without batch
    normalisation that learns. Each part draws its own dropout, so that random numbers come out the
    same on as many cores only. Raises ValueError if the network is not compiled.
    """

    def __init__(self, network: keras.Model):
        super().__init__(name=f"{network.name}_side_by_side")
        if not network.compiled:
            raise ValueError(f"Wanted: a compiled model. Received: {network.name}, not compiled.")
        self._network = network
        self._parts = _parts()
        self.compile(network.optimizer, network.loss, jit_compile=False)

    def call(self, inputs, training=False):
        outputs = [self._network(part, training=training) for part in self._split(inputs)]
        if training:
            return outputs
        rows = ops.shape(keras.tree.flatten(inputs)[0])[0]
        return keras.tree.map_structure(lambda *parts: ops.concatenate(parts)[:rows], *outputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if not training:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        if sample_weight is None:
            raise ValueError(
                "Wanted: sample weights, by which rows that fill up a part do not count. Received: "
                "None."
            )
        loss_of = super().compute_loss
        of_parts = zip(self._split((y, sample_weight)), y_pred, strict=True)
        return sum(
            loss_of(None, target, said, weight, training) for (target, weight), said in of_parts
        )

    def _split(self, arrays) -> list:
        """Arrays of (rows, ...) in any structure -> the same of each part. No part is empty: where
        there are fewer rows than parts, rows of zeros are added, whose weights are zero, too."""
        arrays = keras.tree.map_structure(self._filled, arrays)
        return [
            keras.tree.map_structure(lambda array, number=number: self._part(array, number), arrays)
            for number in range(self._parts)
        ]

    def _filled(self, array):
        missing = ops.maximum(self._parts - ops.shape(array)[0], 0)
        return ops.pad(array, [(0, missing), *[(0, 0)] * (ops.ndim(array) - 1)])

    def _part(self, array, number: int):
        rows = ops.shape(array)[0]
        return array[rows * number // self._parts : rows * (number + 1) // self._parts]


def _parts() -> int:
    if keras.backend.backend() != "tensorflow" or cores() != 2:
        return 1
    import tensorflow as tf

    return 1 if tf.config.list_physical_devices("GPU") else 2
