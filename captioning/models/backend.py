"""Facts that depend on the backend of Keras, which the environment variable KERAS_BACKEND names.

The devices of each backend are in `captioning.training.devices`.
"""

import keras

from captioning.errors import UserError

# OpenVINO converts only Keras models of this backend.
EXPORT_BACKEND = "tensorflow"


def uses_xla() -> bool:
    """Returns whether to compile models with XLA, which compiles each shape of the inputs again.
    With JAX, a step without XLA takes a hundred times as long; TensorFlow hardly gains from it."""
    return keras.backend.backend() == "jax"


def can_export() -> bool:
    """Returns whether this process can export Keras models to OpenVINO."""
    return keras.backend.backend() == EXPORT_BACKEND


def require_export() -> None:
    """Raises UserError if this process cannot export Keras models to OpenVINO."""
    if not can_export():
        raise UserError(
            f"Expected the backend {EXPORT_BACKEND} for the export to OpenVINO, got "
            f"{keras.backend.backend()}. Set KERAS_BACKEND={EXPORT_BACKEND} for this step."
        )
