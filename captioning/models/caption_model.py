"""The caption model: feature map and words so far to the next word.

Of the merge architecture of Tanti, Gatt and Camilleri, "Where to put the image in an image caption
generator" (2018): the image never enters the LSTM, the two meet only in the decoder. Builders only
build; compiling, training and saving belong to the caller.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from captioning.models.decoders import BUILDERS, DECODER, FEATURE_EXTRACTOR
from captioning.models.layers import EachCaption
from captioning.settings import TrainingSettings

SEQUENCE_PROCESSOR = "sequence_processor"
PARTS = (FEATURE_EXTRACTOR, SEQUENCE_PROCESSOR, DECODER)

# The settings that decide which weights a model has; the others decide how they are learnt.
NETWORK_SETTINGS = ("decoder", "embedding_units", "units", "heads")


def build_caption_model(
    vocabulary_size: int,
    feature_width: int,
    settings: TrainingSettings,
    precision: str = "float32",
) -> keras.Model:
    """The caption model that `settings.decoder` names, "merge" or "attention", for whole captions.

    Inputs, by name: `features` (images, cells, feature_width), the feature map of each image, and
    `words` (images, captions, length) int32, some captions of each, padded on the right with 0.
    Output: logits (images, captions, length, vocabulary_size) float32, where position t scores the
    word that follows `words[:, :, : t + 1]`; the softmax over words is left to the loss, and to
    the search. Padding needs no mask: an LSTM reads from left to right, so nothing before it
    ever sees it.

    The model is made of three: the feature extractor looks at each image once, the sequence
    processor reads the captions, the decoder merges what both say and names the next word.
    `precision` is a dtype policy of Keras; weights are float32 in "mixed_bfloat16" as well.
    """
    with _dtype_policy(precision):
        embedding = keras.layers.ReversibleEmbedding(
            vocabulary_size, settings.embedding_units, name="embedding"
        )
        sequence_processor = _sequence_processor(settings)
        feature_extractor, decoder = BUILDERS[settings.decoder](feature_width, settings)

    features = keras.Input((None, feature_width), name="features")
    words = keras.Input((None, None), dtype="int32", name="words")

    image = feature_extractor(features)
    sequence = sequence_processor(embedding(words))  # (images, captions, length, units)
    hidden = decoder([*image, sequence])  # (images, captions, length, embedding_units)
    logits = embedding(hidden, reverse=True)  # a word is likely where its own embedding is near
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(logits)
    return keras.Model({"features": features, "words": words}, logits, name=settings.decoder)


def _sequence_processor(settings: TrainingSettings) -> keras.Model:
    """Embedded captions (images, captions, length, embedding_units) -> the LSTM's state after each
    word (images, captions, length, units)."""
    embedded = keras.Input((None, None, settings.embedding_units), name="embedded")
    scaled = keras.layers.Rescaling(settings.embedding_units**0.5, name="scale")(embedded)
    dropped = keras.layers.Dropout(settings.dropout, name="dropout")(scaled)
    lstm = keras.layers.LSTM(settings.units, return_sequences=True)
    return keras.Model(embedded, EachCaption(lstm, name="lstm")(dropped), name=SEQUENCE_PROCESSOR)


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Layers made inside compute in this precision."""
    default = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(default)
