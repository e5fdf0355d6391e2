"""The loss of training on captions, with label smoothing, and of training on rewards.

`captioning.training.cross_entropy` chooses the loss of distillation, which compares with a teacher.
"""

from math import isfinite, nan

import keras
import numpy as np
from keras import ops

from captioning.errors import UserError


@keras.saving.register_keras_serializable("captioning")
class SmoothedCrossentropy(keras.losses.Loss):
    """Sparse cross-entropy from logits, with label smoothing (Szegedy et al., 2016).

    `y_true` are classes (images, positions) int, `y_pred` logits (images, positions, classes). The
    share `label_smoothing` of each target is spread evenly over all classes. The loss is the sum
    over the positions, each times its sample weight: see `CaptionBatches`.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "loss", **kwargs):
        super().__init__(name=name, reduction="sum", **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        classes = y_pred.shape[-1]
        target = ops.one_hot(y_true, classes, dtype=y_pred.dtype)
        smoothed = (1 - self.label_smoothing) * target + self.label_smoothing / classes
        return ops.logsumexp(y_pred, axis=-1) - ops.sum(smoothed * y_pred, axis=-1)

    def get_config(self):
        return {"label_smoothing": self.label_smoothing, "name": self.name}


def require_finite_loss(loss: float, learning_rate: float) -> None:
    """Raises UserError if training has diverged."""
    if not isfinite(loss):
        raise UserError(
            f"Expected a finite loss, got {loss}: the training diverged. The epochs before are "
            f"kept. Train again with a learning rate below {learning_rate}."
        )


def require_finite_weights(model: keras.Model, learning_rate: float) -> None:
    """Raises UserError if training has diverged in its last batch, whose loss was computed with the
    weights before it."""
    for weights in model.get_weights():
        if not np.isfinite(weights).all():
            require_finite_loss(nan, learning_rate)
