"""The training loss: logits and word ids in, one number a position out."""

import keras
from keras import ops

_LEAST = 1e-37  # the smallest probability, nearly, that float32 tells from 0


@keras.saving.register_keras_serializable("captioning")
class SmoothedCrossentropy(keras.losses.Loss):
    """Sparse cross-entropy from logits, with label smoothing (Szegedy et al., 2016).

    `y_true` (images, captions, length) int, `y_pred` (images, captions, length, classes) logits. A
    share `label_smoothing` of each target is spread evenly over all classes; Keras has this for
    dense targets only, and dense targets would be `classes` times as large. Summed over the sample
    weights, which say what a word counts and that padding does not: see `CaptionBatches`.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "loss", **kwargs):
        super().__init__(name=name, reduction="sum", **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        target = ops.cast(y_true, "int32")
        return _smoothed_crossentropy(target, y_pred, self.label_smoothing)

    def get_config(self):
        return {"label_smoothing": self.label_smoothing, "name": self.name}


def _smoothed_crossentropy(target, logits, smoothing: float):
    """(..., classes) logits -> (...), in as few passes over the logits as will do: they are the
    largest array of all, and differentiation by itself would pass over them twice as often. What a
    word is thought to be less likely than float32 can tell costs no more than that, 85, less what
    smoothing gives back; the gradient is that of the exact loss. Fewer than 2 ** 31 logits, 8 GB,
    are numbered at once."""
    classes = logits.shape[-1]

    @ops.custom_gradient
    def of(logits):
        probabilities = ops.softmax(logits)
        rows = ops.arange(ops.size(target), dtype=target.dtype)
        places = rows * classes + ops.reshape(target, (-1,))  # of the targets among all numbers

        def at_targets(numbers):
            return ops.reshape(ops.take(ops.reshape(numbers, (-1,)), places), ops.shape(target))

        lead = at_targets(logits) - ops.mean(logits, axis=-1)
        loss = smoothing * lead - ops.log(ops.maximum(at_targets(probabilities), _LEAST))

        def gradient(*args, upstream=None):
            upstream = ops.expand_dims(args[0] if upstream is None else upstream, -1)
            spread = ops.reshape((probabilities - smoothing / classes) * upstream, (-1,))
            change = ops.reshape((smoothing - 1) * upstream, (-1,))
            spread = ops.scatter_update(spread, places[:, None], change, reduction="add")
            return ops.reshape(spread, ops.shape(logits))

        return loss, gradient

    return of(logits)
