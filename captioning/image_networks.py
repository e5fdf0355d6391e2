"""The image networks of `keras.applications`, by name: each of them an encoder, from photographs to
feature maps.

Names, image sizes, preprocessing and weights are Keras' own. Not about which of them a folder has:
see `captioning.encoder`; nor about running one: see `captioning.inference`.
"""

import re
from collections.abc import Callable
from inspect import getmembers, getmodule, isfunction
from pathlib import Path

import keras
from keras import ops

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
    images = keras.Input(image_shape, dtype="uint8", name="images")
    preprocess = getmodule(build).preprocess_input  # does nothing where the network does it itself
    grid = network(preprocess(ops.cast(images, "float32")))  # (batch, rows, columns, width)
    cells = keras.layers.Reshape((-1, grid.shape[-1]), name="cells")(grid)
    return keras.Model(images, cells, name=name)


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
