"""The caption models in Keras: they predict the next word from the feature map of an image and the
words before it.

Both are merge models (Tanti, Gatt and Camilleri, "Where to put the image in an image caption
generator", 2018): the image never enters the LSTM; image and words meet in the decoder.

    features -> feature extractor -> image context      computed once per image
    words -> embedding -> sequence processor -> states  the LSTM after each word
    image context, states -> decoder -> logits          scores of the word that follows

The decoder computes each position on its own. In training, the positions of an image are the words
of all its captions (positions = captions * length); in the search, they are its beams (see
`captioning.models.step_model`). Builders only build; the caller compiles, trains and saves.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import log

import keras
from keras import ops

from captioning.settings import TrainingSettings

EMBEDDING = "embedding"
FEATURE_EXTRACTOR = "feature_extractor"
SEQUENCE_PROCESSOR = "sequence_processor"
DECODER = "decoder"
ATTENTION = "attention"  # the layer of the decoder that outputs the attention weights
ENSEMBLE = "ensemble"

# The settings that determine the weights of a model; the others determine its training.
NETWORK_SETTINGS = ("decoder", "embedding_units", "units", "heads")


def build_caption_model(
    vocabulary_size: int,
    feature_width: int,
    settings: TrainingSettings,
    precision: str = "float32",
) -> keras.Model:
    """Builds the caption model that `settings.decoder` names, "merge" or "attention".

    Its inputs, by name, are `features` (images, cells, feature_width), the feature map of each
    image, and `words` (images, captions, length) int32, the ids of its captions, padded on the
    right with 0. It outputs logits (images, captions * length, vocabulary_size) float32.
    Position t of a caption scores the word that follows its first t + 1 words. Padding needs no
    mask: the LSTM reads from left to right, so padding never affects a word before it.

    `precision` is a dtype policy of Keras; the weights stay float32 in "mixed_bfloat16".
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


def rebuild_caption_model(
    trained: keras.Model, settings: TrainingSettings, precision: str = "float32"
) -> keras.Model:
    """Builds the single caption model `trained` again, with its weights, for another precision or
    for the dropout of `settings`."""
    vocabulary_size, feature_width = trained.output.shape[-1], trained.input["features"].shape[-1]
    model = build_caption_model(vocabulary_size, feature_width, settings, precision)
    model.set_weights(trained.get_weights())
    return model


# Words


def _sequence_processor(settings: TrainingSettings) -> keras.Model:
    """Builds the model from embedded captions (images, captions, length, embedding_units) to the
    states of the LSTM (images, positions, units)."""
    embedded = keras.Input((None, None, settings.embedding_units), name="embedded")

    x = keras.layers.Rescaling(settings.embedding_units**0.5, name="scale")(embedded)
    x = keras.layers.Dropout(settings.dropout, name="dropout")(x)
    lstm = keras.layers.LSTM(settings.units, return_sequences=True)
    states = EachCaption(lstm, name="lstm")(x)
    return keras.Model(embedded, states, name=SEQUENCE_PROCESSOR)


@keras.saving.register_keras_serializable("captioning")
class EachCaption(keras.layers.Wrapper):
    """Runs a recurrent layer over each caption. The input has the shape (images, captions, length,
    width), the output (images, captions * length, units)."""

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


# The merge decoder adds the average of the feature map to each state of the LSTM


def _merge(feature_width: int, settings: TrainingSettings) -> tuple[keras.Model, keras.Model]:
    """Builds feature extractor and decoder. Their image context is `image` (images, units)."""
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


# In the attention decoder, each state of the LSTM attends to the cells of the feature map


def _attention(feature_width: int, settings: TrainingSettings) -> tuple[keras.Model, keras.Model]:
    """Builds feature extractor and decoder, with attention of several heads (Vaswani et al., 2017).
    A gate weights the attended cells before they are added to the state and the average of the map.

    Their image context is `keys` (images, heads, head_units, cells), `values` (images, heads,
    cells, head_units) and `average` (images, units). The keys are transposed once per image, so
    that no step of the search needs to transpose them.
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


# An ensemble: models that differ by chance make different errors, and their mean makes fewer


def build_ensemble(members: Sequence[keras.Model]) -> keras.Model:
    """Builds a model with the inputs and the output of its members, caption models of one
    vocabulary and one feature width. Its logits are the logarithm of the mean of their
    probabilities.

    It shares the weights of the members. A single member is returned as it is.
    """
    if len(members) == 1:
        return members[0]
    features = keras.Input(members[0].input["features"].shape[1:], name="features")
    words = keras.Input((None, None), dtype="int32", name="words")
    inputs = {"features": features, "words": words}
    logits = []  # of each member: (images, positions, vocabulary_size)
    for number, member in enumerate(members, start=1):
        renamed = keras.Model(member.input, member.output, name=f"member_{number}")
        logits.append(renamed(inputs))
    return keras.Model(inputs, log_mean(logits), name=ENSEMBLE)


def ensemble_members(caption_model: keras.Model) -> list[keras.Model]:
    """Returns the members of an ensemble. A model that is not an ensemble is its only member."""
    if caption_model.name != ENSEMBLE:
        return [caption_model]
    return [layer for layer in caption_model.layers if isinstance(layer, keras.Model)]


def log_mean(logits: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
    """Returns the logarithm of the mean of several models' probabilities, from their logits (...,
    vocabulary_size)."""
    log_probs = ops.stack([ops.log_softmax(member_logits) for member_logits in logits])
    return ops.logsumexp(log_probs, axis=0) - log(len(logits))


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Layers that are built inside the block compute in this precision."""
    default = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(default)
