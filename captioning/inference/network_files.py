"""The files of exported networks: their names, the metadata in them, copying and replacing them.

`captioning.export` writes them. Not about running a network: see
`captioning.inference.openvino_runtime`.
"""

import shutil
from pathlib import Path

from captioning.inference.openvino_runtime import openvino
from captioning.settings import DEFAULT_ENCODER

ENCODER = "encoder.xml"
DECODER_PREFILL = "decoder_prefill.xml"
DECODER_STEP = "decoder_step.xml"

# Metadata of both decoder files: the fingerprints of the weights and of the vocabulary, the limit
# of the search in words, the width of the features and the units of the LSTM.
DECODER_METADATA_KEYS = ("weights", "vocabulary", "longest_caption", "feature_width", "units")

# Metadata of an encoder (its own ID) and of a decoder (that of the encoder it was trained with).
ENCODER_ID_KEY = "encoder"

_SECTION = "captioning"  # all metadata is below this key


def write_metadata(network: openvino.Model, metadata: dict[str, object]) -> None:
    """Adds metadata to a network in memory; saving the network writes it."""
    for key, value in metadata.items():
        network.set_rt_info(value, [_SECTION, key])


def read_decoder_metadata(network: openvino.Model, path: Path) -> dict[str, str]:
    """The values of `DECODER_METADATA_KEYS` in a network read from `path`. Raises ValueError if it
    lacks one."""
    try:
        return {
            key: str(network.get_rt_info([_SECTION, key]).value) for key in DECODER_METADATA_KEYS
        }
    except RuntimeError as error:
        raise ValueError(
            f"{path} lacks metadata about its vocabulary: it was written by an older version or "
            "another program. Export the model again."
        ) from error


def read_encoder_id(network: openvino.Model) -> str | None:
    """The encoder that a network is, or that a decoder was trained with: its name in
    `keras.applications`, a fingerprint of its weights and, if it is quantised, their type, such as
    "Xception 0123456789abcdef int8". None in files older than this ID."""
    path = [_SECTION, ENCODER_ID_KEY]
    return str(network.get_rt_info(path).value) if network.has_rt_info(path) else None


def encoder_name(encoder_id: str | None) -> str:
    """The name in an encoder ID; files without an ID hold the default encoder."""
    return (encoder_id or DEFAULT_ENCODER).split()[0]


def without_precision(encoder_id: str) -> str:
    """The ID without the type of the weights: a quantised encoder is still the same encoder."""
    return " ".join(encoder_id.split()[:2])


def is_other_encoder(trained_with: str | None, encoder_id: str | None) -> bool:
    """Whether a decoder was trained with another encoder than the given one, whatever the type of
    its weights. If one ID lacks a fingerprint, only the names are compared; None matches all."""
    if None in (trained_with, encoder_id):
        return False
    pairs = zip(without_precision(trained_with).split(), encoder_id.split(), strict=False)
    return any(expected != received for expected, received in pairs)


def image_size(network: openvino.Model) -> tuple[int, int]:
    """Height and width in pixels of the images that an encoder takes."""
    _, height, width, _ = network.input(0).partial_shape
    return height.get_length(), width.get_length()


def copy_network(source: Path, target: Path) -> None:
    """Copies a network, .xml and .bin, to a path where there is none yet."""
    for suffix in (".bin", ".xml"):
        shutil.copyfile(source.with_suffix(suffix), target.with_suffix(suffix))


def replace_network(source: Path, target: Path) -> None:
    """Moves a network, .xml and .bin, over another. The old .xml is removed first and the new one
    moved last, so that an interruption never leaves an .xml beside the weights of another."""
    target.unlink(missing_ok=True)
    source.with_suffix(".bin").replace(target.with_suffix(".bin"))
    source.replace(target)
