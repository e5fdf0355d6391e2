"""The image networks of `keras.applications`, by name: each of them an encoder, from photographs to
feature maps.

Names, image sizes, preprocessing and weights are Keras' own. Not about which of them a folder has:
see `captioning.export.provide_encoder`; nor about running one: see `captioning.inference.networks`.
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
    classifier, or None for random ones. The preprocessing that the network wants is part of it.
    """
    name = keras_name(name)
    return _on_images(_image_network(name, weights), name)


@dataclass(frozen=True)
class SplitEncoder:
    """An encoder in two, which share its weights: `backbone`, images to the feature maps (batch,
    cells, width) that the `exit_flow` turns from a grid (batch, rows, columns, width) into the grid
    (batch, rows, columns, feature_width) that `whole` sees."""

    whole: keras.Model
    backbone: keras.Model
    exit_flow: keras.Model

    def save_weights(self, path: Path) -> None:
        """For `build_encoder`, from such a file, to make the same encoder anew."""
        (network,) = (layer for layer in self.whole.layers if isinstance(layer, keras.Model))
        with replace_when_written(path) as neighbour:
            network.save_weights(neighbour)


def build_split_encoder(name: str, weights: str | Path | None = IMAGENET) -> SplitEncoder:
    """As `build_encoder`, cut behind the last sum but one, so that the last residual block and all
    that follows are the exit flow, in Xception blocks 13 and 14. Raises ValueError if the network
    has no such blocks."""
    name = keras_name(name)
    network = _image_network(name, weights)
    sums = [layer for layer in network.layers if isinstance(layer, keras.layers.Add)]
    if len(sums) < 2:
        raise ValueError(
            "Wanted: an encoder of residual blocks, whose last ones can be taken off. Received: "
            f"{name}."
        )
    cut = sums[-2].output
    return SplitEncoder(
        _on_images(network, name),
        _on_images(keras.Model(network.input, cut), name),
        keras.Model(cut, network.output, name="exit_flow"),
    )


def keras_name(name: str) -> str:
    """The name as Keras writes it, "ResNet50V2" of "resnet50v2". ValueError if there is none."""
    names = {each.casefold(): each for each in _image_networks()}
    if name.casefold() not in names:
        raise ValueError(
            f"An encoder is one of {', '.join(names.values())}, image networks of "
            f"keras.applications. Received: {name}."
        )
    return names[name.casefold()]


def image_size(name: str) -> tuple[int, int]:
    """Height and width of the images that a network was trained on, without building it.

    Keras takes whole networks with trained weights at this size only, and names it when it refuses
    another. MobileNetV3 is taken at any size that is not too small; its description names the one.
    """
    build = _image_networks()[keras_name(name)]
    try:
        build(include_top=True, weights=IMAGENET, input_shape=_TOO_SMALL)
    except ValueError as refusal:
        if named := _SQUARE_IMAGE.search(f"{refusal} {build.__doc__}"):
            return int(named[1]), int(named[1])
    raise RuntimeError(
        f"Keras names no image size for {name}. Wanted: a version that does, as Keras 3.15. "
        f"Received: Keras {keras.__version__}."
    )


def _image_network(name: str, weights: str | Path | None) -> keras.Model:
    """The network as Keras has it, without its classifier."""
    if weights not in (IMAGENET, None) and not Path(weights).exists():
        raise FileNotFoundError(
            f'{name} weights wanted from "imagenet" or from a file. Received: {weights}, which '
            "does not exist."
        )
    build = _image_networks()[name]
    image_shape = (*image_size(name), 3)
    try:
        network = build(
            weights=weights and str(weights), include_top=False, input_shape=image_shape
        )
    except Exception as error:  # Keras raises no narrower one when the line fails
        if weights != IMAGENET or not isinstance(error.__context__ or error, OSError):
            raise
        raise ConnectionError(
            f"The {name} weights could not be downloaded ({error}). Check the line and try again, "
            "or put the file by hand into ~/.keras/models, where Keras looks first."
        ) from error
    if weights not in (IMAGENET, None):
        _refuse_lost_scale(network, name, weights)
    return network


def _on_images(network: keras.Model, name: str) -> keras.Model:
    """An image network, or the beginning of it, as an encoder, with the preprocessing of `name`."""
    images = keras.Input(network.input_shape[1:], dtype="uint8", name="images")
    # Does nothing where the network does it itself.
    preprocess = getmodule(_image_networks()[name]).preprocess_input
    grid = network(preprocess(ops.cast(images, "float32")))  # (batch, rows, columns, width)
    cells = keras.layers.Reshape((-1, grid.shape[-1]), name="cells")(grid)
    return keras.Model(images, cells, name=name)


def _image_networks() -> dict[str, Callable[..., keras.Model]]:
    return dict(getmembers(keras.applications, isfunction))


def _refuse_lost_scale(network: keras.Model, name: str, weights: str | Path) -> None:
    """EfficientNetB0 to B7 scale images once more than their weights say, and Keras builds that in
    only where it fetches the weights itself. From a file, they would see half of each contrast.
    """
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            _, variance, _ = layer.get_weights()
            if (variance != 1).any():
                raise ValueError(
                    f"{weights} holds weights of {name} for ImageNet, which Keras reads rightly "
                    'only as "imagenet". Put its file into ~/.keras/models and name no file.'
                )
