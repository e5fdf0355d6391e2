"""Provides the encoder of a root folder: keeps the one there, copies the shipped one or makes one.

Not about the network itself: see `captioning.inference.networks` and
`captioning.models.image_encoder`.
"""

import tempfile
from pathlib import Path

from captioning.data.augmentation import AUGMENTATIONS
from captioning.data.feature_store import FeatureStore
from captioning.inference.networks import Encoder
from captioning.inference.openvino_runtime import (
    ENCODER,
    copy_network,
    encoder_name,
    encoder_precision,
    read_encoder_id,
    read_network,
    replace_network,
)
from captioning.paths import Paths, find_model
from captioning.settings import DEFAULT_ENCODER


def provide_encoder(folder: Path, name: str | None = None, weights: str | None = None) -> Encoder:
    """Loads the encoder in `folder`, the `models` of a root folder, after putting it there if need
    be.

    `name`: an image network of `keras.applications`; by default any encoder that is there, else
    `DEFAULT_ENCODER`. `weights` ("imagenet" or the path of a weights file) always make a new one;
    without them the shipped encoder is copied if it is the named one. Raises ValueError if this
    would replace the encoder that made the feature maps in the root folder.
    """
    shipped = Paths(find_model()).models
    if weights or not (has_encoder(folder, name) or has_encoder(shipped, name)):
        _make(folder, name or _name_in(folder), weights)
    elif not has_encoder(folder, name):
        _copy(shipped, folder)
    return Encoder(folder, encoder_precision())


def has_encoder(folder: Path, name: str | None = None) -> bool:
    """Whether `folder` holds an encoder; with a `name`, whether it is that network."""
    if name is None or not (folder / ENCODER).exists():
        return (folder / ENCODER).exists()
    return _is_named(_encoder_id_in(folder), name)


def _name_in(folder: Path) -> str:
    """The name of the encoder in `folder`, the default if there is none that can be read."""
    try:
        return encoder_name(_encoder_id_in(folder))
    except (FileNotFoundError, ValueError):
        return DEFAULT_ENCODER


def _encoder_id_in(folder: Path) -> str | None:
    return read_encoder_id(read_network(folder / ENCODER))


def _make(folder: Path, name: str, weights: str | None) -> None:
    from captioning.export.keras_to_openvino import export_encoder, make_encoder_id
    from captioning.models.image_encoder import IMAGENET, build_encoder, keras_name

    name = keras_name(name)
    for path, encoder_id in _feature_files(folder):
        if not _is_named(encoder_id, name):  # refused before its weights are downloaded
            raise _replaces_encoder_in_use(path, encoder_id, name)
    encoder = build_encoder(name, weights or IMAGENET)
    _refuse_to_replace(folder, make_encoder_id(encoder))
    export_encoder(encoder, folder)


def _copy(source: Path, folder: Path) -> None:
    _refuse_to_replace(folder, _encoder_id_in(source))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="saving-") as temporary:
        copy = Path(temporary, ENCODER)
        copy_network(source / ENCODER, copy)
        replace_network(copy, folder / ENCODER)


def _refuse_to_replace(folder: Path, new: str | None) -> None:
    for path, encoder_id in _feature_files(folder):
        if encoder_id != new:
            raise _replaces_encoder_in_use(path, encoder_id, new)


def _feature_files(folder: Path) -> list[tuple[Path, str | None]]:
    """The files of feature maps beside `folder`, each with the ID of the encoder that made it; none
    if `folder` holds no encoder that could be lost."""
    if not (folder / ENCODER).exists():
        return []
    paths = Paths(folder.parent)
    files = [
        paths.feature_maps,
        *(paths.augmented_feature_maps(augmentation.name) for augmentation in AUGMENTATIONS),
    ]
    return [(path, maps.encoder_id) for path in files if (maps := FeatureStore(path))]


def _is_named(encoder_id: str | None, name: str) -> bool:
    return encoder_name(encoder_id).casefold() == name.casefold()


def _replaces_encoder_in_use(path: Path, made_by: str | None, new: str | None) -> ValueError:
    return ValueError(
        f"Expected {made_by or DEFAULT_ENCODER}, the encoder that made {path}, got "
        f"{new or DEFAULT_ENCODER}, which would replace it. Delete the feature maps and their "
        ".json files to start again, or name neither another encoder nor weights."
    )
