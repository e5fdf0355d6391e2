"""The caption model: feature map and words so far to the next word.

Of the merge architecture of Tanti, Gatt and Camilleri, "Where to put the image in an image caption
generator" (2018): the image never enters the LSTM, the two meet only in the decoder. Builders only
build; compiling, training and saving belong to the caller.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
from keras import ops

from captioning.decoders import ATTENTION, BUILDERS, DECODER, FEATURE_EXTRACTOR
from captioning.layers import EachCaption, EachCaptionStep
from captioning.settings import TrainingSettings

SEQUENCE_PROCESSOR = "sequence_processor"
PARTS = (FEATURE_EXTRACTOR, SEQUENCE_PROCESSOR, DECODER)


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
    word that follows `words[:, :, : t + 1]`; the softmax over words is left to the loss, and to the
    step form below. Padding needs no mask: an LSTM reads from left to right, so nothing before it
    ever sees it.

    The model is made of three: the feature extractor looks at each image once, the sequence
    processor reads the captions, the decoder merges what both say and names the next word.
    `precision` is a dtype policy of Keras; weights are float32 in "mixed_bfloat16" as well.
    """
    if settings.decoder not in BUILDERS:
        raise ValueError(
            f"A decoder is one of {', '.join(BUILDERS)}. Received: {settings.decoder}."
        )
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


def build_search_models(caption_model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """The same network, same weights, one word at a time, for some beams of each image.

    `look`: features (images, cells, feature_width) -> the parts of what the decoder sees of an
    image, each (images, ...): all that an image costs is paid here, once.
    `step`: last words (images, beams) int32, hidden and cell (images, beams, units), image parts
    -> log-probabilities (images, beams, vocabulary_size) of the next word, new hidden, new cell,
    and of a decoder with attention the share of it that each cell of the feature map got, the mean
    of all heads (images, beams, cells).
    """
    embedding, sequence_processor, decoder = (
        caption_model.get_layer(name) for name in ("embedding", SEQUENCE_PROCESSOR, DECODER)
    )
    look = caption_model.get_layer(FEATURE_EXTRACTOR)
    lstm = sequence_processor.get_layer("lstm").layer
    word = keras.Input((None,), dtype="int32", name="word")
    hidden = keras.Input((None, lstm.units), name="last_hidden")
    cell = keras.Input((None, lstm.units), name="last_cell")
    image = [
        keras.Input(part.shape[1:], name=f"image_{number}")
        for number, part in enumerate(look.outputs)
    ]
    embedded = sequence_processor.get_layer("scale")(embedding(word))
    state = EachCaptionStep(lstm.cell)(embedded, hidden, cell)
    merged, *attention = _with_attention(decoder)([*image, ops.expand_dims(state[0], 2)])
    logits = embedding(merged, reverse=True)[:, :, 0]
    log_probs = ops.log_softmax(ops.cast(logits, "float32"))
    attention = [ops.mean(ops.cast(heads[:, :, 0], "float32"), axis=2) for heads in attention]
    outputs = [log_probs, *state, *attention]
    return look, keras.Model([word, hidden, cell, *image], outputs, name="decoder_step")


def _with_attention(decoder: keras.Model) -> keras.Model:
    """The decoder, its output in a list, and behind it the weights of its attention (images,
    captions, length, heads, cells), if it has any."""
    weights = [layer.output for layer in decoder.layers if layer.name == ATTENTION]
    return keras.Model(decoder.inputs, [decoder.output, *weights])


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
