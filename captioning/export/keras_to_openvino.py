"""Turns Keras models into the networks that captioning runs: in files, or in memory while training.

The files hold float16 weights and need no Keras. `captioning.inference.encoder` and `decoder` read
them.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from captioning.data.vocabulary import Vocabulary
from captioning.inference.decoder import Decoder
from captioning.inference.encoder import Encoder
from captioning.inference.network_files import (
    DECODER_PREFILL,
    DECODER_STEP,
    ENCODER,
    read_network,
    replace_networks,
)
from captioning.inference.openvino_runtime import (
    DECODER_METADATA_KEYS,
    ENCODER_ID_KEY,
    encoder_precision,
    full_disk_as_os_error,
    openvino,
    save_network,
    without_telemetry,
    write_metadata,
)
from captioning.models.backend import require_export, uses_xla
from captioning.models.step_model import build_step_models

# Most of the time of a call in Keras does not depend on the number of images, so that Keras needs
# larger batches than OpenVINO.
_SEARCH_BATCH_SIZE = 64

# The names that TensorFlow gives to the outputs of a function.
_OUTPUT_NAME = re.compile(r"Identity(_\d+)?:0")


def export_encoder(encoder: keras.Model, folder: Path) -> None:
    """Writes `encoder.xml` and `encoder.bin` to `folder`, for
    `captioning.inference.encoder.Encoder`, with the encoder's ID as metadata."""
    with replace_networks(folder) as new_folder:
        _write(encoder, new_folder / ENCODER, {ENCODER_ID_KEY: make_encoder_id(encoder)})


def export_decoder(
    caption_model: keras.Model,
    vocabulary: Vocabulary,
    longest_caption: int,
    folder: Path,
    encoder_id: str | None = None,
) -> None:
    """Writes `decoder_prefill` and `decoder_step`, .xml and .bin each, to `folder`, for
    `captioning.inference.decoder.Decoder`.

    The metadata names the weights, the vocabulary and the encoder that belong together, and
    `longest_caption`, the limit of the search in words. `encoder_id` is that of the features on
    which the model was trained; None if it is unknown.
    """
    prefill, step = build_step_models(caption_model)
    values = (
        make_fingerprint(caption_model),
        vocabulary.fingerprint,
        longest_caption,
        prefill.input_shape[-1],
        _units(step),
    )
    metadata = dict(zip(DECODER_METADATA_KEYS, values, strict=True))
    if encoder_id:
        metadata[ENCODER_ID_KEY] = encoder_id
    with replace_networks(folder) as new_folder:
        _write(prefill, new_folder / DECODER_PREFILL, metadata)
        _write(step, new_folder / DECODER_STEP, metadata)


def to_encoder(encoder: keras.Model) -> Encoder:
    """Returns the encoder as a network in memory, in the fastest precision for many images."""
    with tempfile.TemporaryDirectory() as folder:
        export_encoder(encoder, Path(folder))
        return Encoder(Path(folder), encoder_precision())


def to_decoder(caption_model: keras.Model, vocabulary: Vocabulary, longest_caption: int) -> Decoder:
    """Returns the caption model as a decoder in memory, which always has the current weights of the
    model. `longest_caption`: the limit of the search in words."""
    prefill, step = build_step_models(caption_model)
    for network in (prefill, step):
        network.compile(jit_compile=uses_xla())
    return Decoder(
        lambda inputs: _predict(prefill, inputs),
        lambda inputs: _predict(step, inputs),
        vocabulary,
        longest_caption=longest_caption,
        feature_width=prefill.input_shape[-1],
        units=_units(step),
        search_batch_size=_SEARCH_BATCH_SIZE,
    )


def make_encoder_id(encoder: keras.Model) -> str:
    """Returns the ID that the exported file holds: see
    `captioning.inference.openvino_runtime.read_encoder_id`."""
    return f"{encoder.name} {make_fingerprint(encoder)}"


def make_fingerprint(model: keras.Model) -> str:
    """Returns 16 hexadecimal digits, which are equal for equal weights before any rounding."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(keras.ops.convert_to_numpy(weight).tobytes())
    return digest.hexdigest()[:16]


def _predict(network: keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Runs a network. For XLA, which compiles for each number of images, rounds that number up to a
    power of two."""
    images = len(inputs[0])
    added = 2 ** (images - 1).bit_length() - images if uses_xla() else 0
    if added:
        inputs = [np.pad(x, [(0, added)] + [(0, 0)] * (x.ndim - 1)) for x in inputs]
    outputs = network.predict_on_batch(inputs if len(inputs) > 1 else inputs[0])
    return [output[:images] for output in keras.tree.flatten(outputs)]


def _units(step: keras.Model) -> int:
    """The number of units of the LSTM, whose hidden state is the second input of the step."""
    return step.input_shape[1][-1]


def _write(model: keras.Model, path: Path, metadata: dict[str, object]) -> None:
    """Writes the network to the folder of `path`, which `replace_networks` made. Raises UserError
    if Keras does not run on TensorFlow."""
    require_export()
    exported = path.with_name("exported.xml")
    with without_telemetry(), _converter_on_python_3_13(), full_disk_as_os_error(exported):
        model.export(str(exported), format="openvino", verbose=False)
    network = read_network(exported)
    if len(network.outputs) > len(model.outputs):
        _remove_stray_outputs(network)
    write_metadata(network, metadata)
    save_network(network, path)


@contextmanager
def _converter_on_python_3_13() -> Iterator[None]:
    """Inside the block, OpenVINO's converter finds the version of TensorFlow. Its own function, of
    OpenVINO 2026.4, deletes a variable between two calls of `exec`, which Python 3.13 refuses."""
    import tensorflow
    from openvino.frontend.tensorflow import utils

    original = utils.get_environment_setup
    utils.get_environment_setup = lambda _: {"tensorflow": tensorflow.__version__}
    try:
        yield
    finally:
        utils.get_environment_setup = original


def _remove_stray_outputs(network: openvino.Model) -> None:
    """Removes the results that OpenVINO adds for swish, which keeps its input for a gradient."""
    for result in network.get_results():
        if not any(map(_OUTPUT_NAME.fullmatch, result.input_value(0).get_names())):
            network.remove_result(result)
