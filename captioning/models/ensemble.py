"""Several caption models in, one out: the mean of what they think of the next word.

Models that differ by chance alone err in different places; their mean errs less. Not about how the
members are trained.
"""

from collections.abc import Sequence
from math import log

import keras
from keras import ops

ENSEMBLE = "ensemble"


def build_ensemble(members: Sequence[keras.Model]) -> keras.Model:
    """A model with inputs and output of its members, which are caption models of one vocabulary
    and one feature width: the logits are the logarithm of the mean of their probabilities.

    Weights are shared with the members. A single member comes back as it is.
    """
    if len(members) == 1:
        return members[0]
    features = keras.Input(members[0].input["features"].shape[1:], name="features")
    words = keras.Input((None, None), dtype="int32", name="words")
    logits = [
        _renamed(member, f"member_{number}")({"features": features, "words": words})
        for number, member in enumerate(members, start=1)
    ]  # each (images, captions, length, vocabulary_size)
    return keras.Model({"features": features, "words": words}, log_mean(logits), name=ENSEMBLE)


def members_of(caption_model: keras.Model) -> list[keras.Model]:
    """The models that an ensemble is made of; of a model that is none, itself."""
    if caption_model.name != ENSEMBLE:
        return [caption_model]
    return [layer for layer in caption_model.layers if isinstance(layer, keras.Model)]


def log_mean(logits: Sequence) -> keras.KerasTensor:
    """Logits of several models -> the logarithm of the mean of their probabilities."""
    log_probs = ops.stack([ops.log_softmax(each) for each in logits])
    return ops.logsumexp(log_probs, axis=0) - log(len(logits))


def _renamed(model: keras.Model, name: str) -> keras.Model:
    return keras.Model(model.input, model.output, name=name)
