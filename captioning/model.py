"""The two networks: photograph to features, features and words so far to the next word.

The merge architecture of Tanti, Gatt and Camilleri, "Where to put the image in an image caption
generator" (2018): the image never enters the LSTM, the two meet only in the decoder. Builders only
build; compiling, training and saving belong to the caller.
"""

from pathlib import Path

import keras
from keras import ops

from captioning.settings import TrainingSettings

IMAGE_SHAPE = (299, 299, 3)  # what Xception was trained on


def build_caption_model(
    vocabulary_size: int, feature_width: int, settings: TrainingSettings
) -> keras.Model:
    """The merge model, for whole captions at once.

    Inputs, by name: `features` (batch, feature_width) float32 and `words` (batch, length) int32,
    padded on the right with 0. Output: logits (batch, length, vocabulary_size) float32, where
    position t scores the word that follows `words[:, : t + 1]`; the softmax over words is left to
    the loss, and to the step form below. Padding needs no mask: an LSTM
    reads from left to right, so nothing before it ever sees it.
    """
    features = keras.Input((feature_width,), name="features")
    words = keras.Input((None,), dtype="int32", name="words")

    # Feature extractor.
    image = keras.layers.Dropout(settings.dropout, name="feature_extractor_dropout")(features)
    image = keras.layers.Dense(settings.units, activation="relu", name="feature_extractor_dense")(
        image
    )  # (batch, units)

    # Sequence processor.
    sequence = keras.layers.Embedding(
        vocabulary_size, settings.embedding_units, name="sequence_processor_embedding"
    )(words)
    sequence = keras.layers.Dropout(settings.dropout, name="sequence_processor_dropout")(sequence)
    sequence = keras.layers.LSTM(
        settings.units, return_sequences=True, name="sequence_processor_lstm"
    )(sequence)  # (batch, length, units)

    # Decoder.
    image = keras.layers.Reshape((1, settings.units), name="decoder_image_at_every_word")(image)
    merged = keras.layers.Add(name="decoder_merge")([image, sequence])  # (batch, length, units)
    merged = keras.layers.Dropout(settings.dropout, name="decoder_dropout")(merged)
    hidden = keras.layers.Dense(settings.embedding_units, activation="relu", name="decoder_dense")(
        merged
    )
    logits = keras.layers.Dense(vocabulary_size, name="decoder_logits")(hidden)
    return keras.Model({"features": features, "words": words}, logits, name="merge_caption_model")


def build_search_models(caption_model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """The same network, same weights, one word at a time.

    `start`: features (rows, feature_width) -> image, hidden, cell, each (rows, units).
    `step`: last words (rows,) int32, image, hidden, cell -> log-probabilities (rows,
    vocabulary_size) of the next word, new hidden, new cell. A step costs one step of the LSTM.
    """
    layer = caption_model.get_layer
    features = keras.Input(caption_model.input["features"].shape[1:], name="features")
    image = layer("feature_extractor_dense")(features)
    zeros = ops.zeros_like(image)
    start = keras.Model(features, [image, zeros, zeros], name="decoder_start")

    units = image.shape[-1]
    word = keras.Input((), dtype="int32", name="word")
    image = keras.Input((units,), name="projected_image")
    hidden = keras.Input((units,), name="last_hidden")
    cell = keras.Input((units,), name="last_cell")
    embedded = layer("sequence_processor_embedding")(word)
    sequence, state = layer("sequence_processor_lstm").cell(embedded, [hidden, cell])
    merged = layer("decoder_merge")([image, sequence])  # (rows, units)
    logits = layer("decoder_logits")(layer("decoder_dense")(merged))
    step = keras.Model(
        [word, image, hidden, cell], [ops.log_softmax(logits), *state], name="decoder_step"
    )
    return start, step


def build_encoder(weights: str | Path | None = "imagenet") -> keras.Model:
    """Xception (Chollet, 2017) without its classifier: uint8 RGB images (batch, 299, 299, 3) to
    float32 features (batch, 2048), the average over the last feature map.

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
            weights=weights and str(weights),
            include_top=False,
            pooling="avg",
            input_shape=IMAGE_SHAPE,
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
    return keras.Model(images, xception(scaled), name="encoder")
