"""The caption models in Keras: the feature map of an image and the words so far give the next word.

Both are merge models (Tanti, Gatt and Camilleri, "Where to put the image in an image caption
generator", 2018): the image never enters the LSTM, image and words meet in the decoder.

    features -> feature extractor -> image context      once an image
    words -> embedding -> sequence processor -> states  the LSTM after each word
    image context, states -> decoder -> logits          scores of the word that follows

The decoder treats every position by itself, in a row of positions an image. In training these are
the words of all captions of the image (positions = captions * length), in the search its beams (see
`captioning.models.step_model`). Builders only build; the caller compiles, trains and saves.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
from keras import ops

from captioning.settings import TrainingSettings

EMBEDDING = "embedding"
FEATURE_EXTRACTOR = "feature_extractor"
SEQUENCE_PROCESSOR = "sequence_processor"
DECODER = "decoder"
ATTENTION = "attention"  # the layer of the decoder whose output are the attention weights

# The settings that decide which weights a model has; the others decide how it learns them.
NETWORK_SETTINGS = ("decoder", "embedding_units", "units", "heads")


def build_caption_model(
    vocabulary_size: int,
    feature_width: int,
    settings: TrainingSettings,
    precision: str = "float32",
) -> keras.Model:
    """The caption model that `settings.decoder` names, "merge" or "attention".

    Inputs, by name: `features` (images, cells, feature_width), the feature map of each image, and
    `words` (images, captions, length) int32, some captions of each, padded on the right with 0.
    Output: logits (images, captions * length, vocabulary_size) float32. Position t of a caption
    scores the word that follows its first t + 1 words. Padding needs no mask: the LSTM reads from
    left to right, so padding never reaches a word before it.

    `precision` is a dtype policy of Keras; the weights are float32 in "mixed_bfloat16" as well.
    """
    build_extractor_and_decoder = {"merge": _merge, "attention": _attention}[settings.decoder]
    with _dtype_policy(precision):
        embedding = keras.layers.ReversibleEmbedding(
            vocabulary_size, settings.embedding_units, name=EMBEDDING
        )
        sequence_processor = _sequence_processor(settings)
        feature_extractor, decoder = build_extractor_and_decoder(feature_width, settings)

    features = keras.Input((None, feature_width), name="features")
    words = keras.Input((None, None), dtype="int32", name="words")

    image_context = feature_extractor(features)
    states = sequence_processor(embedding(words))  # (images, positions, units)
    hidden = decoder([*image_context, states])  # (images, positions, embedding_units)
    logits = embedding(hidden, reverse=True)  # a word is likely where its embedding is near
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(logits)
    return keras.Model({"features": features, "words": words}, logits, name=settings.decoder)


# Words


def _sequence_processor(settings: TrainingSettings) -> keras.Model:
    """Embedded captions (images, captions, length, embedding_units) -> the states of the LSTM
    (images, positions, units)."""
    embedded = keras.Input((None, None, settings.embedding_units), name="embedded")

    x = keras.layers.Rescaling(settings.embedding_units**0.5, name="scale")(embedded)
    x = keras.layers.Dropout(settings.dropout, name="dropout")(x)
    lstm = keras.layers.LSTM(settings.units, return_sequences=True)
    states = EachCaption(lstm, name="lstm")(x)
    return keras.Model(embedded, states, name=SEQUENCE_PROCESSOR)


@keras.saving.register_keras_serializable("captioning")
class EachCaption(keras.layers.Wrapper):
    """Runs a recurrent layer over each caption: (images, captions, length, width) -> (images,
    captions * length, units)."""

    def call(self, captions):
        images, _, length, width = ops.shape(captions)
        states = self.layer(ops.reshape(captions, (-1, length, width)))
        return ops.reshape(states, (images, -1, self.layer.units))

    def build(self, input_shape):
        self.layer.build((None, *input_shape[2:]))

    def compute_output_shape(self, input_shape):
        images, captions, length, _ = input_shape
        positions = None if None in (captions, length) else captions * length
        return images, positions, self.layer.units


# The merge decoder: the average of the feature map is added to each state of the LSTM


def _merge(feature_width: int, settings: TrainingSettings) -> tuple[keras.Model, keras.Model]:
    """Image context: `image` (images, units)."""
    units = settings.units

    features = keras.Input((None, feature_width), name="features")
    x = keras.layers.GlobalAveragePooling1D(name="average")(features)  # (images, feature_width)
    x = keras.layers.Dropout(settings.dropout, name="dropout")(x)
    image = keras.layers.Dense(units, activation="relu", name="dense")(x)
    feature_extractor = keras.Model(features, [image], name=FEATURE_EXTRACTOR)

    image = keras.Input((units,), name="image")
    states = keras.Input((None, units), name="states")
    at_every_position = keras.layers.Reshape((1, units), name="at_every_position")(image)
    x = keras.layers.Add(name="merge")([at_every_position, states])  # (images, positions, units)
    x = keras.layers.Dropout(settings.dropout, name="dropout")(x)
    hidden = keras.layers.Dense(settings.embedding_units, activation="relu", name="dense")(x)
    decoder = keras.Model([image, states], hidden, name=DECODER)
    return feature_extractor, decoder


# The attention decoder: each state of the LSTM attends to the cells of the feature map


def _attention(feature_width: int, settings: TrainingSettings) -> tuple[keras.Model, keras.Model]:
    """Attention with several heads (Vaswani et al., 2017). A gate lets the attended cells through;
    they are merged with the state and the average of the map.

    Image context: `keys` (images, heads, head_units, cells), `values` (images, heads, cells,
    head_units) and `average` (images, units). Heads come first and keys stand upright, so that
    each position multiplies them as they lie.
    """
    units, heads = settings.units, settings.heads
    head_units = units // heads

    features = keras.Input((None, feature_width), name="features")
    x = keras.layers.SpatialDropout1D(settings.dropout, name="dropout")(features)
    cells = keras.layers.Dense(units, activation="relu", name="cells_dense")(x)
    cells = keras.layers.LayerNormalization(name="cells_norm")(cells)  # (images, cells, units)
    keys = keras.layers.Dense(heads * head_units, name="keys")(cells)
    keys = keras.layers.Reshape((-1, heads, head_units), name="keys_by_head")(keys)
    keys = keras.layers.Permute((2, 3, 1), name="keys_upright")(keys)
    values = keras.layers.Dense(heads * head_units, name="values")(cells)
    values = keras.layers.Reshape((-1, heads, head_units), name="values_by_head")(values)
    values = keras.layers.Permute((2, 1, 3), name="values_heads_first")(values)
    average = keras.layers.GlobalAveragePooling1D(name="average")(x)  # (images, feature_width)
    average = keras.layers.Dense(units, activation="relu", name="average_dense")(average)
    feature_extractor = keras.Model(features, [keys, values, average], name=FEATURE_EXTRACTOR)

    keys = keras.Input((heads, head_units, None), name="keys")
    values = keras.Input((heads, None, head_units), name="values")
    average = keras.Input((units,), name="average")
    states = keras.Input((None, units), name="states")
    state = keras.layers.Dropout(settings.dropout, name="state_dropout")(states)

    queries = keras.layers.Dense(heads * head_units, name="queries")(state)
    queries = keras.layers.Reshape((-1, heads, head_units), name="queries_by_head")(queries)
    queries = keras.layers.Permute((2, 1, 3), name="queries_heads_first")(queries)
    scores = ops.matmul(queries, keys) * head_units**-0.5  # (images, heads, positions, cells)
    weights = keras.layers.Softmax(name=ATTENTION)(scores)
    attended = ops.matmul(weights, values)  # (images, heads, positions, head_units)
    attended = keras.layers.Permute((2, 1, 3), name="attended_positions_first")(attended)
    attended = keras.layers.Reshape((-1, heads * head_units), name="attended_as_one")(attended)
    attended = keras.layers.Dense(units, name="attended")(attended)  # (images, positions, units)

    both = keras.layers.Concatenate(name="state_and_attended")([state, attended])
    gate = keras.layers.Dense(units, activation="sigmoid", name="gate")(both)
    gated = keras.layers.Multiply(name="gated")([gate, attended])
    at_every_position = keras.layers.Reshape((1, units), name="at_every_position")(average)
    merged = keras.layers.Add(name="merge")([state, gated, at_every_position])
    merged = keras.layers.LayerNormalization(name="merge_norm")(merged)

    x = keras.layers.Dense(2 * units, activation="relu", name="hidden")(merged)
    x = keras.layers.Dense(units, name="hidden_out")(x)
    x = keras.layers.Add(name="hidden_residual")([merged, x])
    x = keras.layers.Dense(settings.embedding_units, name="to_embedding")(x)
    x = keras.layers.LayerNormalization(name="to_embedding_norm")(x)
    hidden = keras.layers.Dropout(settings.dropout, name="dropout")(x)
    decoder = keras.Model([keys, values, average, states], hidden, name=DECODER)
    return feature_extractor, decoder


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Layers made inside compute in this precision."""
    default = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(default)
