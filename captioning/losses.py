"""The training loss: logits and word ids in, one number a position out."""

import keras
from keras import ops


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
    """(..., classes) logits -> (...). Logits are the largest array of all, and what differentiation
    makes of this formula by itself passes over them half as often again."""
    classes = logits.shape[-1]

    @ops.custom_gradient
    def of(logits):
        highest = ops.max(logits, axis=-1, keepdims=True)
        exponentials = ops.exp(logits - highest)
        total = ops.sum(exponentials, axis=-1, keepdims=True)
        log_norm = ops.squeeze(ops.log(total) + highest, -1)
        target_logit = ops.take_along_axis(logits, ops.expand_dims(target, -1), axis=-1)
        expected_logit = (1 - smoothing) * ops.squeeze(target_logit, -1)
        expected_logit += smoothing * ops.mean(logits, axis=-1)

        def gradient(*args, upstream=None):
            upstream = ops.expand_dims(args[0] if upstream is None else upstream, -1)
            wanted = ops.one_hot(target, classes, dtype=logits.dtype) * ((1 - smoothing) * upstream)
            return exponentials * (upstream / total) - (smoothing / classes) * upstream - wanted

        return log_norm - expected_logit, gradient

    return of(logits)
