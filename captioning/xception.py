"""The image network: photograph to feature map."""

from pathlib import Path

import keras
from keras import ops

IMAGE_SHAPE = (299, 299, 3)  # what Xception was trained on


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
