"""Provides the encoder of a root folder: keeps its encoder, copies the shipped one, or builds a new
one.

`captioning.models.image_encoder` builds encoders; `captioning.inference.encoder` runs them.
"""

from pathlib import Path

from captioning.data.augmentation import AUGMENTATIONS
from captioning.data.feature_store import FeatureStore
from captioning.errors import UserError
from captioning.inference.encoder import Encoder
from captioning.inference.network_files import (
    ENCODER,
    copy_network,
    network_exists,
    read_network,
    replace_networks,
)
from captioning.inference.openvino_runtime import encoder_name, encoder_precision, read_encoder_id
from captioning.paths import Paths, find_model
from captioning.settings import DEFAULT_ENCODER


def provide_encoder(folder: Path, name: str | None = None, weights: str | None = None) -> Encoder:
    """Loads the encoder in `folder`, the `models` of a root folder. If necessary, copies or builds
    it first.

    `name` is an image network of `keras.applications`; by default that of the encoder in `folder`,
    else `DEFAULT_ENCODER`. With `weights` ("imagenet" or the path of a weights file), a new encoder
    is built. Without them, the shipped encoder is copied if it has this name. Raises UserError if
    this would replace the encoder that made the feature maps in the root folder, and the errors of
    `build_encoder`.
    """
    shipped = Paths(find_model()).models
    if weights or not (has_encoder(folder, name) or has_encoder(shipped, name)):
        _build(folder, name or _read_name(folder), weights)
    elif not has_encoder(folder, name):
        _copy(shipped, folder)
    return Encoder(folder, encoder_precision())


def has_encoder(folder: Path, name: str | None = None) -> bool:
    """Whether `folder` holds an encoder; with a `name`, whether it holds that encoder."""
    if not network_exists(folder / ENCODER):
        return False
    return name is None or _has_name(_read_id(folder), name)


def _read_name(folder: Path) -> str:
    """The name of the encoder in `folder`; the default if it holds none that can be read."""
    try:
        return encoder_name(_read_id(folder))
    except (FileNotFoundError, UserError):
        return DEFAULT_ENCODER


def _read_id(folder: Path) -> str | None:
    return read_encoder_id(read_network(folder / ENCODER))


def _build(folder: Path, name: str, weights: str | None) -> None:
    from captioning.export.keras_to_openvino import export_encoder, make_encoder_id
    from captioning.models.image_encoder import IMAGENET, build_encoder, find_keras_name

    name = find_keras_name(name)
    for path, encoder_id in _feature_files(folder):
        if not _has_name(encoder_id, name):  # before Keras downloads the weights
            raise _replacement_error(path, encoder_id, name)
    encoder = build_encoder(name, weights or IMAGENET)
    _refuse_to_replace(folder, make_encoder_id(encoder))
    export_encoder(encoder, folder)


def _copy(source: Path, folder: Path) -> None:
    _refuse_to_replace(folder, _read_id(source))
    with replace_networks(folder) as new_folder:
        copy_network(source / ENCODER, new_folder / ENCODER)


def _refuse_to_replace(folder: Path, new_id: str | None) -> None:
    for path, encoder_id in _feature_files(folder):
        if encoder_id != new_id:
            raise _replacement_error(path, encoder_id, new_id)


def _feature_files(folder: Path) -> list[tuple[Path, str | None]]:
    """The files of feature maps beside `folder`, with the ID of the encoder that made them. Empty
    if `folder` holds no encoder that could be lost."""
    if not network_exists(folder / ENCODER):
        return []
    paths = Paths(folder.parent)
    files = [
        paths.feature_maps,
        paths.development_feature_maps,
        paths.pooled_feature_maps,
        *(paths.augmented_feature_maps(augmentation.name) for augmentation in AUGMENTATIONS),
    ]
    return [(path, maps.encoder_id) for path in files if (maps := FeatureStore(path))]


def _has_name(encoder_id: str | None, name: str) -> bool:
    return encoder_name(encoder_id).casefold() == name.casefold()


def _replacement_error(path: Path, encoder_id: str | None, new_id: str | None) -> UserError:
    return UserError(
        f"Expected {encoder_id or DEFAULT_ENCODER}, the encoder that made {path}, got "
        f"{new_id or DEFAULT_ENCODER}, which would replace it. Delete the feature maps and their "
        ".json files to start again, or leave out --encoder and --weights."
    )
