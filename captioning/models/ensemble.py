"""An ensemble of caption models: the mean of their predictions.

Models that differ by chance alone make different errors; their mean makes fewer. Not about how the
members are trained.
"""

from collections.abc import Sequence
from math import log

import keras
from keras import ops

ENSEMBLE = "ensemble"


def build_ensemble(members: Sequence[keras.Model]) -> keras.Model:
    """A model with the inputs and the output of its members, caption models of one vocabulary and
    one feature width: its logits are the logarithm of the mean of their probabilities.

    It shares the weights of the members. A single member is returned as it is.
    """
    if len(members) == 1:
        return members[0]
    features = keras.Input(members[0].input["features"].shape[1:], name="features")
    words = keras.Input((None, None), dtype="int32", name="words")
    logits = [
        _rename(member, f"member_{number}")({"features": features, "words": words})
        for number, member in enumerate(members, start=1)
    ]  # of each member (images, positions, vocabulary_size)
    return keras.Model({"features": features, "words": words}, log_mean(logits), name=ENSEMBLE)


def members_of(caption_model: keras.Model) -> list[keras.Model]:
    """The members of an ensemble; a model that is no ensemble is its only member."""
    if caption_model.name != ENSEMBLE:
        return [caption_model]
    return [layer for layer in caption_model.layers if isinstance(layer, keras.Model)]


def log_mean(logits: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
    """The logits of several models -> the logarithm of the mean of their probabilities."""
    log_probs = ops.stack([ops.log_softmax(member_logits) for member_logits in logits])
    return ops.logsumexp(log_probs, axis=0) - log(len(logits))


def _rename(model: keras.Model, name: str) -> keras.Model:
    return keras.Model(model.input, model.output, name=name)
