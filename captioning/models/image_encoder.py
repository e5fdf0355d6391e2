"""The image encoders in Keras, from photographs to feature maps: those of `keras.applications`.

Names, image sizes, preprocessing and weights are those of Keras. Not about which encoder a folder
holds (see `captioning.export.provide_encoder`), nor about running one without Keras (see
`captioning.inference.networks`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from inspect import getmembers, getmodule, isfunction
from pathlib import Path

import keras
from keras import ops

from captioning.files import replace_when_written

IMAGENET = "imagenet"

_SQUARE_IMAGE = re.compile(r"\((\d\d+), \1, 3\)")  # (299, 299, 3)
_TOO_SMALL = (1, 1, 3)


def build_encoder(name: str, weights: str | Path | None = IMAGENET) -> keras.Model:
    """An image network without its classifier: uint8 RGB images (batch, height, width, 3) to
    float32 feature maps (batch, cells, feature_width), the cells of its grid row by row.

    `name` is a function of `keras.applications`; the model is named as Keras writes it. `weights`
    is "imagenet" (downloaded by Keras), the path of a weights file of the network without its
    classifier, or None for random ones. The preprocessing is part of the model.
    """
    name = keras_name(name)
    return _on_images(_image_network(name, weights), name)


@dataclass(frozen=True)
class SplitEncoder:
    """An encoder, `whole`, and its two halves, which share its weights: the `backbone`, from images
    to maps (batch, cells, width), and the `exit_flow`, from the grid of such a map (batch, rows,
    columns, width) to the grid of the feature map (batch, rows, columns, feature_width)."""

    whole: keras.Model
    backbone: keras.Model
    exit_flow: keras.Model

    def save_weights(self, path: Path) -> None:
        """Writes a file from which `build_encoder` builds the same encoder again."""
        (network,) = (layer for layer in self.whole.layers if isinstance(layer, keras.Model))
        with replace_when_written(path) as neighbour:
            network.save_weights(neighbour)


def build_split_encoder(name: str, weights: str | Path | None = IMAGENET) -> SplitEncoder:
    """As `build_encoder`, cut behind the last sum but one: the last residual block and all that
    follows are the exit flow, in Xception blocks 13 and 14. Raises ValueError if the network has no
    residual blocks."""
    name = keras_name(name)
    network = _image_network(name, weights)
    sums = [layer for layer in network.layers if isinstance(layer, keras.layers.Add)]
    if len(sums) < 2:
        raise ValueError(
            f"Expected an encoder with residual blocks, got {name}. Fine-tune one such as Xception "
            "or ResNet50V2."
        )
    cut = sums[-2].output
    return SplitEncoder(
        _on_images(network, name),
        _on_images(keras.Model(network.input, cut), name),
        keras.Model(cut, network.output, name="exit_flow"),
    )


def keras_name(name: str) -> str:
    """The name as Keras writes it, "ResNet50V2" for "resnet50v2". Raises ValueError if Keras has no
    such network."""
    names = {known.casefold(): known for known in _image_networks()}
    if name.casefold() not in names:
        raise ValueError(
            f"Expected an image network of keras.applications, got {name}. Choose one of "
            f"{', '.join(names.values())}."
        )
    return names[name.casefold()]


def image_size(name: str) -> tuple[int, int]:
    """Height and width of the images that a network was trained on, without building it.

    Keras builds a whole network with trained weights at this size only, and names the size when it
    refuses another. It builds MobileNetV3 at any size that is not too small and names the size in
    its docstring.
    """
    build = _image_networks()[keras_name(name)]
    try:
        build(include_top=True, weights=IMAGENET, input_shape=_TOO_SMALL)
    except ValueError as refusal:
        if named := _SQUARE_IMAGE.search(f"{refusal} {build.__doc__}"):
            return int(named[1]), int(named[1])
    raise RuntimeError(
        f"Expected a Keras that names the image size of {name}, got Keras {keras.__version__}. "
        "Install Keras 3.15."
    )


def _image_network(name: str, weights: str | Path | None) -> keras.Model:
    """The network as Keras has it, without its classifier."""
    if weights not in (IMAGENET, None) and not Path(weights).exists():
        raise FileNotFoundError(
            f'Expected "imagenet" or a file of {name} weights, got {weights}, which does not exist.'
        )
    build = _image_networks()[name]
    image_shape = (*image_size(name), 3)
    try:
        network = build(
            weights=weights and str(weights), include_top=False, input_shape=image_shape
        )
    except Exception as error:  # Keras raises no narrower one when a download fails
        if weights != IMAGENET or not isinstance(error.__context__ or error, OSError):
            raise
        raise ConnectionError(
            f"The {name} weights could not be downloaded ({error}). Check the connection and try "
            "again, or put the file into ~/.keras/models, where Keras looks first."
        ) from error
    if weights not in (IMAGENET, None):
        _refuse_lost_scale(network, name, weights)
    return network


def _on_images(network: keras.Model, name: str) -> keras.Model:
    """An image network, or its beginning, as an encoder with the preprocessing of `name`."""
    images = keras.Input(network.input_shape[1:], dtype="uint8", name="images")
    # Changes nothing for a network that does its preprocessing itself.
    preprocess = getmodule(_image_networks()[name]).preprocess_input
    grid = network(preprocess(ops.cast(images, "float32")))  # (batch, rows, columns, width)
    cells = keras.layers.Reshape((-1, grid.shape[-1]), name="cells")(grid)
    return keras.Model(images, cells, name=name)


def _image_networks() -> dict[str, Callable[..., keras.Model]]:
    return dict(getmembers(keras.applications, isfunction))


def _refuse_lost_scale(network: keras.Model, name: str, weights: str | Path) -> None:
    """EfficientNetB0 to B7 scale the images once more if Keras downloads their weights, and not if
    the weights come from a file: the network would see half of each contrast.
    """
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            _, variance, _ = layer.get_weights()
            if (variance != 1).any():
                raise ValueError(
                    f'Expected "imagenet" for the ImageNet weights of {name}, got {weights}, which '
                    "Keras would scale wrongly. Put the file into ~/.keras/models and name no file."
                )
