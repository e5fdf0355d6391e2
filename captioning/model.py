"""The networks: photograph to feature map, feature map and words so far to the next word.

Two decoders of the merge architecture of Tanti, Gatt and Camilleri, "Where to put the image in an
image caption generator" (2018): the image never enters the LSTM, the two meet only in the decoder.
Builders only build; compiling, training and saving belong to the caller.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
from keras import ops

from captioning.settings import TrainingSettings

IMAGE_SHAPE = (299, 299, 3)  # what Xception was trained on

FEATURE_EXTRACTOR, SEQUENCE_PROCESSOR, DECODER = PARTS = (
    "feature_extractor",
    "sequence_processor",
    "decoder",
)


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
    if settings.decoder not in _DECODERS:
        raise ValueError(
            f"A decoder is one of {', '.join(_DECODERS)}. Received: {settings.decoder}."
        )
    with _dtype_policy(precision):
        embedding = keras.layers.ReversibleEmbedding(
            vocabulary_size, settings.embedding_units, name="embedding"
        )
        sequence_processor = _sequence_processor(settings)
        feature_extractor, decoder = _DECODERS[settings.decoder](feature_width, settings)

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
    -> log-probabilities (images, beams, vocabulary_size) of the next word, new hidden, new cell.
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
    merged = decoder([*image, ops.expand_dims(state[0], 2)])
    logits = embedding(merged, reverse=True)[:, :, 0]
    log_probs = ops.log_softmax(ops.cast(logits, "float32"))
    step = keras.Model([word, hidden, cell, *image], [log_probs, *state], name="decoder_step")
    return look, step


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Layers made inside compute in this precision."""
    default = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(default)


@keras.saving.register_keras_serializable("captioning")
class EachCaption(keras.layers.Wrapper):
    """Runs a recurrent layer over each caption of each image:
    (images, captions, length, width) -> (images, captions, length, units)."""

    def call(self, captions):
        images, captions_each, length, width = ops.shape(captions)
        rows = ops.reshape(captions, (images * captions_each, length, width))
        rows = self.layer(rows)
        return ops.reshape(rows, (images, captions_each, length, self.layer.units))

    def build(self, input_shape):
        self.layer.build((None, *input_shape[2:]))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.layer.units)


class EachCaptionStep(keras.layers.Wrapper):
    """One step of an LSTM cell for each beam of each image: input (images, beams, width), last
    hidden and cell state (images, beams, units) -> new hidden and cell state."""

    def call(self, inputs, hidden, cell):
        rows = (ops.reshape(each, (-1, each.shape[-1])) for each in (inputs, hidden, cell))
        inputs_row, *state_rows = rows
        _, state_rows = self.layer(inputs_row, state_rows)
        return [ops.reshape(rows, ops.shape(hidden)) for rows in state_rows]

    def build(self, *shapes):
        """Nothing: the cell is that of a model which was built."""

    def compute_output_shape(self, inputs_shape, hidden_shape, cell_shape):
        return [hidden_shape, cell_shape]


def _sequence_processor(settings: TrainingSettings) -> keras.Model:
    """Embedded captions (images, captions, length, embedding_units) -> the LSTM's state after each
    word (images, captions, length, units)."""
    embedded = keras.Input((None, None, settings.embedding_units), name="embedded")
    scaled = keras.layers.Rescaling(settings.embedding_units**0.5, name="scale")(embedded)
    dropped = keras.layers.Dropout(settings.dropout, name="dropout")(scaled)
    lstm = keras.layers.LSTM(settings.units, return_sequences=True)
    return keras.Model(embedded, EachCaption(lstm, name="lstm")(dropped), name=SEQUENCE_PROCESSOR)


def _merge(feature_width: int, settings: TrainingSettings) -> tuple[keras.Model, keras.Model]:
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


def _attention(feature_width: int, settings: TrainingSettings) -> tuple[keras.Model, keras.Model]:
    """The state of the LSTM asks the cells of the feature map by attention (Vaswani et al., 2017);
    what comes back is merged, through a gate, with the state and the average of the map."""
    units, heads = settings.units, settings.heads

    features = keras.Input((None, feature_width), name="features")
    dropped = keras.layers.SpatialDropout1D(settings.dropout, name="dropout")(features)
    cells = keras.layers.Dense(units, activation="relu", name="cells_dense")(dropped)
    cells = keras.layers.LayerNormalization(name="cells_norm")(cells)  # (images, cells, units)
    keys, values = (
        keras.layers.EinsumDense(
            "bku,uhd->bkhd", (None, heads, units // heads), bias_axes="hd", name=name
        )(cells)
        for name in ("keys", "values")
    )  # (images, cells, heads, units / heads)
    average = keras.layers.GlobalAveragePooling1D(name="average")(dropped)
    average = keras.layers.Dense(units, activation="relu", name="average_dense")(average)
    feature_extractor = keras.Model(features, [keys, values, average], name=FEATURE_EXTRACTOR)

    keys, values = (
        keras.Input((None, heads, units // heads), name=name) for name in ("keys", "values")
    )
    average = keras.Input((units,), name="average")
    sequence = keras.Input((None, None, units), name="sequence")
    state = keras.layers.Dropout(settings.dropout, name="state_dropout")(sequence)
    queries = keras.layers.EinsumDense(
        "bclu,uhd->bclhd", (None, None, heads, units // heads), bias_axes="hd", name="queries"
    )(state)
    scores = ops.einsum("bclhd,bkhd->bclhk", queries, keys) * (units // heads) ** -0.5
    attention = keras.layers.Softmax(name="attention")(scores)
    seen = ops.einsum("bclhk,bkhd->bclhd", attention, values)
    seen = keras.layers.EinsumDense(
        "bclhd,hdu->bclu", (None, None, units), bias_axes="u", name="seen"
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


_DECODERS = {"merge": _merge, "attention": _attention}


def build_encoder(weights: str | Path | None = "imagenet") -> keras.Model:
    """Xception (Chollet, 2017) without its classifier: uint8 RGB images (batch, 299, 299, 3) to
    float32 feature maps (batch, 100, 2048), the cells of a 10 x 10 grid row by row.

    `weights` is "imagenet" (downloaded by Keras), the path of a weights file, or None for random
    ones. Scaling to [-1, 1] is part of the network.
    """
    if weights not in ("imagenet", None) and not Path(weights).exists():
        raise FileNotFoundError(
            f'Xception weights wanted from "imagenet" or from a file. Received: {weights}, which '
            "does not exist."
        )
    try:
        xception = keras.applications.Xception(
            weights=weights and str(weights), include_top=False, input_shape=IMAGE_SHAPE
        )
    except Exception as error:  # what Keras raises when a download fails
        if weights != "imagenet":
            raise
        raise ConnectionError(
            f"The Xception weights could not be downloaded ({error}). Check the line and try "
            "again, or download the file by hand and name it."
        ) from error
    images = keras.Input(IMAGE_SHAPE, dtype="uint8", name="images")
    scaled = keras.applications.xception.preprocess_input(ops.cast(images, "float32"))
    grid = xception(scaled)  # (batch, 10, 10, 2048)
    cells = keras.layers.Reshape((-1, grid.shape[-1]), name="cells")(grid)
    return keras.Model(images, cells, name="encoder")
