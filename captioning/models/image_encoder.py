"""The image encoders in Keras, which turn photographs into feature maps.

They are the networks of `keras.applications`, with the names, image sizes, preprocessing and
weights of Keras. `captioning.export.provide_encoder` chooses the encoder of a folder;
`captioning.inference.encoder` runs an encoder without Keras.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from inspect import getmembers, getmodule, isfunction
from pathlib import Path

import keras
from keras import ops

from captioning.errors import UserError, one_line
from captioning.files import replace_when_written

IMAGENET = "imagenet"

_SQUARE_IMAGE = re.compile(r"\((\d\d+), \1, 3\)")  # (299, 299, 3)
_TOO_SMALL = (1, 1, 3)


def build_encoder(name: str, weights: str | Path | None = IMAGENET) -> keras.Model:
    """Builds an image network without its classifier, but with its preprocessing.

    The model takes uint8 RGB images (batch, height, width, 3) and returns float32 feature maps
    (batch, cells, feature_width), the cells of the grid row by row.

    `name` is that of a function of `keras.applications`, in capital or small letters; the model is
    named as Keras writes it. `weights` is "imagenet" (downloaded by Keras), the path of a weights
    file of the network without its classifier, or None for random weights. Raises UserError for an
    unknown name, FileNotFoundError for a missing file and ConnectionError if the download fails.
    """
    name = find_keras_name(name)
    return _on_images(_image_network(name, weights), name)


@dataclass(frozen=True)
class SplitEncoder:
    """An encoder, `whole`, and its two parts, which share its weights.

    The `backbone` takes images and returns backbone maps (batch, cells, width). `last_blocks`
    takes the grid of such a map (batch, rows, columns, width) and returns the grid of the feature
    map (batch, rows, columns, feature_width).
    """

    whole: keras.Model
    backbone: keras.Model
    last_blocks: keras.Model

    def save_weights(self, path: Path) -> None:
        """Writes the weights file from which `build_encoder` builds the same encoder again."""
        (network,) = (layer for layer in self.whole.layers if isinstance(layer, keras.Model))
        with replace_when_written(path) as neighbour:
            network.save_weights(neighbour)


def build_split_encoder(name: str, weights: str | Path | None, blocks: int) -> SplitEncoder:
    """Builds an encoder as `build_encoder` does, and cuts it before its last `blocks` residual
    blocks, after which there may be others: with 1, before the exit flow of Xception, blocks 13 and
    14. Raises UserError if the network has no block before them."""
    name = find_keras_name(name)
    network = _image_network(name, weights)
    sums = [layer for layer in network.layers if isinstance(layer, keras.layers.Add)]
    if len(sums) <= blocks:
        raise UserError(
            f"Expected an encoder with more than {blocks} residual blocks, got {name} with "
            f"{len(sums)}. Fine-tune fewer blocks, or an encoder such as Xception or ResNet50V2."
        )
    cut = sums[-1 - blocks].output
    return SplitEncoder(
        _on_images(network, name),
        _on_images(keras.Model(network.input, cut), name),
        keras.Model(cut, network.output, name="last_blocks"),
    )


def find_keras_name(name: str) -> str:
    """Returns the name of a network as Keras writes it, such as "ResNet50V2" for "resnet50v2".
    Raises UserError if Keras has no such network."""
    names = {network.casefold(): network for network in _image_networks()}
    if name.casefold() not in names:
        raise UserError(
            f"Expected an image network of keras.applications, got {name}. Choose one of "
            f"{', '.join(names.values())}."
        )
    return names[name.casefold()]


def find_image_size(name: str) -> tuple[int, int]:
    """Returns height and width in pixels of the images that a network was trained on, without
    building the network.

    Keras builds a network with its classifier and trained weights at this size only; its error for
    another size names the right one. MobileNetV3 accepts many sizes; its docstring names the right
    one. Raises RuntimeError if Keras names no size.
    """
    build = _image_networks()[find_keras_name(name)]
    try:
        build(include_top=True, weights=IMAGENET, input_shape=_TOO_SMALL)
    except ValueError as error:
        if match := _SQUARE_IMAGE.search(f"{error} {build.__doc__}"):
            return int(match[1]), int(match[1])
    raise RuntimeError(
        f"Expected a Keras that names the image size of {name}, got Keras {keras.__version__}. "
        "Install Keras 3.15."
    )


def _image_network(name: str, weights: str | Path | None) -> keras.Model:
    """Builds the network as Keras does, without its classifier."""
    if weights not in (IMAGENET, None) and not Path(weights).exists():
        raise FileNotFoundError(
            f'Expected "imagenet" or a file of {name} weights, got {weights}, which does not '
            "exist. Name an existing file."
        )
    build = _image_networks()[name]
    image_shape = (*find_image_size(name), 3)
    try:
        network = build(
            weights=weights and str(weights), include_top=False, input_shape=image_shape
        )
    except Exception as error:  # of nearly every class, for a failed download or a damaged file
        if weights not in (IMAGENET, None):
            raise UserError(
                f"Expected weights of {name} in {weights}, got another or a damaged file "
                f"({one_line(error)}). Name another file."
            ) from error
        if not isinstance(error.__context__ or error, OSError):
            raise
        raise ConnectionError(
            f"Expected to download the {name} weights, got an error ({error}). Check the "
            "connection and try again, or put the file into ~/.keras/models, where Keras looks "
            "first."
        ) from error
    if weights not in (IMAGENET, None):
        _refuse_lost_scale(network, name, weights)
    return network


def _on_images(network: keras.Model, name: str) -> keras.Model:
    """Puts the preprocessing of `name` before an image network, or before its first layers, and
    flattens the grid of its output into cells."""
    images = keras.Input(network.input_shape[1:], dtype="uint8", name="images")
    # The function does nothing for a network that contains its preprocessing.
    preprocess = getmodule(_image_networks()[name]).preprocess_input
    grid = network(preprocess(ops.cast(images, "float32")))  # (batch, rows, columns, width)
    cells = keras.layers.Reshape((-1, grid.shape[-1]), name="cells")(grid)
    return keras.Model(images, cells, name=name)


def _image_networks() -> dict[str, Callable[..., keras.Model]]:
    return dict(getmembers(keras.applications, isfunction))


def _refuse_lost_scale(network: keras.Model, name: str, weights: str | Path) -> None:
    """Raises UserError for ImageNet weights of EfficientNetB0 to B7 from a file. With weights that
    Keras downloads, these networks scale the images once more; with the same weights from a file
    they do not, and would see half of each contrast."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            _, variance, _ = layer.get_weights()
            if (variance != 1).any():
                raise UserError(
                    f'Expected "imagenet" for the ImageNet weights of {name}, got {weights}, which '
                    "Keras would scale wrongly. Put the file into ~/.keras/models and name no file."
                )
