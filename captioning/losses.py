"""The training loss: logits and word ids in, one number a position out."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("captioning")
class SmoothedCrossentropy(keras.losses.Loss):
    """Sparse cross-entropy from logits, with label smoothing (Szegedy et al., 2016).

    `y_true` (batch, length) int, `y_pred` (batch, length, classes) logits. A share
    `label_smoothing` of each target is spread evenly over all classes; Keras has this for dense
    targets only, and dense targets would be `classes` times as large. Summed over the sample
    weights, which say what a word counts and that padding does not: see `CaptionBatches`.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "loss", **kwargs):
        super().__init__(name=name, reduction="sum", **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        log_norm = ops.logsumexp(y_pred, axis=-1)  # (batch, length)
        target = ops.expand_dims(ops.cast(y_true, "int32"), -1)
        target_logit = ops.squeeze(ops.take_along_axis(y_pred, target, axis=-1), -1)
        expected_logit = (1 - self.label_smoothing) * target_logit
        expected_logit += self.label_smoothing * ops.mean(y_pred, axis=-1)
        return log_norm - expected_logit

    def get_config(self):
        return {"label_smoothing": self.label_smoothing, "name": self.name}
