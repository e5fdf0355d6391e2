"""The two decoders: what they want to know of an image, and how they merge it with the words.

Each is a pair of networks. The feature extractor turns feature maps (images, cells, feature_width)
into parts, arrays of (images, ...), once an image. The decoder takes these parts and the states of
the LSTM (images, captions, length, units), and says what the next word is like (images, captions,
length, embedding_units).
"""

import keras
from keras import ops

from captioning.settings import TrainingSettings

FEATURE_EXTRACTOR, DECODER = "feature_extractor", "decoder"
ATTENTION = "attention"  # the layer whose output says how much each cell matters to each word


def build_merge(feature_width: int, settings: TrainingSettings) -> tuple[keras.Model, keras.Model]:
    """The classic: the average of the feature map is added to the state of the LSTM."""
    features = keras.Input((None, feature_width), name="features")
    image = keras.layers.GlobalAveragePooling1D(name="average")(features)  # (images, feature_width)
    image = keras.layers.Dropout(settings.dropout, name="dropout")(image)
    image = keras.layers.Dense(settings.units, activation="relu", name="dense")(image)
    feature_extractor = keras.Model(features, [image], name=FEATURE_EXTRACTOR)

    image = keras.Input((settings.units,), name="image")
    sequence = keras.Input((None, None, settings.units), name="sequence")
    merged = keras.layers.Add(name="merge")(
        [keras.layers.Reshape((1, 1, settings.units), name="at_every_word")(image), sequence]
    )  # (images, captions, length, units)
    merged = keras.layers.Dropout(settings.dropout, name="dropout")(merged)
    hidden = keras.layers.Dense(settings.embedding_units, activation="relu", name="dense")(merged)
    return feature_extractor, keras.Model([image, sequence], hidden, name=DECODER)


def build_attention(
    feature_width: int, settings: TrainingSettings
) -> tuple[keras.Model, keras.Model]:
    """The state of the LSTM asks the cells of the feature map by attention (Vaswani et al., 2017);
    what comes back is merged, through a gate, with the state and the average of the map."""
    units, heads = settings.units, settings.heads

    features = keras.Input((None, feature_width), name="features")
    dropped = keras.layers.SpatialDropout1D(settings.dropout, name="dropout")(features)
    cells = keras.layers.Dense(units, activation="relu", name="cells_dense")(dropped)
    cells = keras.layers.LayerNormalization(name="cells_norm")(cells)  # (images, cells, units)
    # Heads first, and keys upright: so they are multiplied as they lie, at every word.
    keys = keras.layers.EinsumDense(
        "bku,uhd->bhdk", (heads, units // heads, None), bias_axes="hd", name="keys"
    )(cells)  # (images, heads, units / heads, cells)
    values = keras.layers.EinsumDense(
        "bku,uhd->bhkd", (heads, None, units // heads), bias_axes="hd", name="values"
    )(cells)  # (images, heads, cells, units / heads)
    average = keras.layers.GlobalAveragePooling1D(name="average")(dropped)
    average = keras.layers.Dense(units, activation="relu", name="average_dense")(average)
    feature_extractor = keras.Model(features, [keys, values, average], name=FEATURE_EXTRACTOR)

    keys = keras.Input((heads, units // heads, None), name="keys")
    values = keras.Input((heads, None, units // heads), name="values")
    average = keras.Input((units,), name="average")
    sequence = keras.Input((None, None, units), name="sequence")
    state = keras.layers.Dropout(settings.dropout, name="state_dropout")(sequence)
    queries = keras.layers.EinsumDense(
        "bclu,uhd->bhcld", (heads, None, None, units // heads), bias_axes="hd", name="queries"
    )(state)
    scores = ops.einsum("bhcld,bhdk->bhclk", queries, keys) * (units // heads) ** -0.5
    attention = keras.layers.Softmax(name=ATTENTION)(scores)
    seen = ops.einsum("bhclk,bhkd->bhcld", attention, values)
    seen = keras.layers.EinsumDense(
        "bhcld,hdu->bclu", (None, None, units), bias_axes="u", name="seen"
    )(seen)
    gate = keras.layers.Dense(units, activation="sigmoid", name="gate")(
        keras.layers.Concatenate(name="state_and_seen")([state, seen])
    )
    merged = keras.layers.Add(name="merge")(
        [
            state,
            keras.layers.Multiply(name="gated")([gate, seen]),
            keras.layers.Reshape((1, 1, units), name="at_every_word")(average),
        ]
    )
    merged = keras.layers.LayerNormalization(name="merge_norm")(merged)
    hidden = keras.layers.Dense(2 * units, activation="relu", name="hidden")(merged)
    hidden = keras.layers.Add(name="hidden_residual")(
        [merged, keras.layers.Dense(units, name="hidden_out")(hidden)]
    )
    hidden = keras.layers.Dense(settings.embedding_units, name="to_embedding")(hidden)
    hidden = keras.layers.LayerNormalization(name="to_embedding_norm")(hidden)
    hidden = keras.layers.Dropout(settings.dropout, name="dropout")(hidden)
    return feature_extractor, keras.Model([keys, values, average, sequence], hidden, name=DECODER)


BUILDERS = {"merge": build_merge, "attention": build_attention}
