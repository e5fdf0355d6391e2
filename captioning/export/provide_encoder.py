"""The encoder that a root folder is to have: the one that is there, the shipped one, or a new one.

Not about what an encoder computes: see `captioning.inference.networks` and `captioning.models.image_encoder`.
"""

import tempfile
from pathlib import Path

from captioning.data.augmentation import AUGMENTATIONS
from captioning.data.feature_store import FeatureStore
from captioning.inference.network_files import (
    ENCODER,
    copy_network,
    encoder_name,
    read_encoder_id,
    read_network,
    replace_network,
)
from captioning.inference.networks import Encoder
from captioning.inference.processor import encoder_precision
from captioning.paths import Paths
from captioning.settings import DEFAULT_ENCODER


def provide_encoder(folder: Path, name: str | None = None, weights: str | None = None) -> Encoder:
    """The encoder in `folder`, the `models` of a root folder, put there first if need be.

    `name`: an image network of `keras.applications`; without one, whichever is there, or else the
    default. It is copied from this repository if that has it, or made anew with `weights`
    ("imagenet", or the path of a weights file), which make it anew in any case. Raises ValueError
    if that would replace the encoder that made the feature maps of the root folder by another.
    """
    shipped = Paths().models
    if weights or not (has_encoder(folder, name) or has_encoder(shipped, name)):
        _make(folder, name or _name_in(folder), weights)
    elif not has_encoder(folder, name):
        _copy(shipped, folder)
    return Encoder(folder, encoder_precision())


def has_encoder(folder: Path, name: str | None = None) -> bool:
    """Whether there is an encoder in `folder`; with a `name`, whether it is that network."""
    if name is None or not (folder / ENCODER).exists():
        return (folder / ENCODER).exists()
    return _is_named(_identity_in(folder), name)


def _name_in(folder: Path) -> str:
    """That of the encoder in `folder`; the default where there is none that can be read."""
    try:
        return encoder_name(_identity_in(folder))
    except (FileNotFoundError, ValueError):
        return DEFAULT_ENCODER


def _identity_in(folder: Path) -> str | None:
    return read_encoder_id(read_network(folder / ENCODER))


def _make(folder: Path, name: str, weights: str | None) -> None:
    from captioning.export.keras_to_openvino import export_encoder, make_encoder_id
    from captioning.models.image_encoder import IMAGENET, build_encoder, keras_name

    name = keras_name(name)
    for path, identity in _makers(folder):
        if not _is_named(identity, name):  # seen before its weights are downloaded
            raise _in_use(path, identity, name)
    encoder = build_encoder(name, weights or IMAGENET)
    _refuse_to_replace(folder, make_encoder_id(encoder))
    export_encoder(encoder, folder)


def _copy(source: Path, folder: Path) -> None:
    _refuse_to_replace(folder, _identity_in(source))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="saving-") as temporary:
        copy = Path(temporary, ENCODER)
        copy_network(source / ENCODER, copy)
        replace_network(copy, folder / ENCODER)


def _refuse_to_replace(folder: Path, new: str | None) -> None:
    for path, identity in _makers(folder):
        if identity != new:
            raise _in_use(path, identity, new)


def _makers(folder: Path) -> list[tuple[Path, str | None]]:
    """The feature maps that there are beside `folder`, and which encoder made them; none where
    there is no encoder that could be lost."""
    files = Paths(folder.parent)
    paths = [
        files.feature_maps,
        *(files.augmented_feature_maps(view.name) for view in AUGMENTATIONS),
    ]
    if not (folder / ENCODER).exists():
        return []
    return [(path, maps.encoder_id) for path in paths if (maps := FeatureStore(path))]


def _is_named(identity: str | None, name: str) -> bool:
    return encoder_name(identity).casefold() == name.casefold()


def _in_use(path: Path, made_by: str | None, new: str | None) -> ValueError:
    return ValueError(
        f"{path} was made with another encoder. Wanted: {made_by or DEFAULT_ENCODER}. Received: "
        f"{new or DEFAULT_ENCODER}, which would replace it. Delete the feature maps and their "
        ".json files to begin anew, or name no other encoder and no weights."
    )
