"""Keras models in, what captioning runs out: in memory while training, in files afterwards.

The files hold float16 weights and need no Keras; `captioning.inference.networks` reads them, and a test
holds both sides equal.
"""

import hashlib
import re
import tempfile
from pathlib import Path

import keras

from captioning.data.vocabulary import Vocabulary
from captioning.inference.network_files import (
    DECODER_METADATA_KEYS,
    DECODER_PREFILL,
    DECODER_STEP,
    ENCODER,
    ENCODER_ID_KEY,
    read_network,
    replace_network,
)
from captioning.inference.networks import Decoder, Encoder
from captioning.inference.processor import encoder_precision
from captioning.inference.runtime import openvino
from captioning.models.step_model import build_step_models

# What TensorFlow calls the outputs of a function.
_OUTPUT_NAME = re.compile(r"Identity(_\d+)?:0")


def export_encoder(encoder: keras.Model, folder: Path) -> None:
    """Writes `encoder.xml` and `encoder.bin`: see `captioning.inference.networks.Encoder`. They hold its
    name and fingerprint, which those of the same weights share, however coarsely exported."""
    _export(encoder, folder / ENCODER, {ENCODER_ID_KEY: make_encoder_id(encoder)})


def make_encoder_id(encoder: keras.Model) -> str:
    """As `captioning.inference.network_files.read_encoder_id` finds it in the exported file."""
    return f"{encoder.name} {fingerprint(encoder)}"


def fingerprint(model: keras.Model) -> str:
    """Equal for equal weights, as they are in Keras, before any are rounded."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(keras.ops.convert_to_numpy(weight).tobytes())
    return digest.hexdigest()[:16]


def to_encoder(encoder: keras.Model) -> Encoder:
    """The encoder as it is in memory, in the form in which many images are seen."""
    with tempfile.TemporaryDirectory() as folder:
        export_encoder(encoder, Path(folder))
        return Encoder(Path(folder), encoder_precision())


def to_decoder(caption_model: keras.Model, vocabulary: Vocabulary, longest_caption: int) -> Decoder:
    """The caption model as it is in memory, in the form in which captions are searched for."""
    look, step = build_step_models(caption_model)
    for network in (look, step):
        network.compile(jit_compile=False)  # rows differ, and XLA compiles every number of them
    return Decoder(
        lambda features: keras.tree.flatten(look.predict_on_batch(features)),
        step.predict_on_batch,
        vocabulary,
        longest_caption,
        feature_width=look.input_shape[-1],
        units=step.input_shape[1][-1],
    )


def export_decoder(
    caption_model: keras.Model,
    vocabulary: Vocabulary,
    longest_caption: int,
    folder: Path,
    encoder_id: str | None = None,
) -> None:
    """Writes the caption model as `decoder_prefill` and `decoder_step`, `.xml` and `.bin` each.

    Both files name what belongs to them, so that nothing else is used with them, and hold
    `longest_caption` in words, the limit of the search. `encoder_id`: that of the training's
    features, as of `captioning.inference.network_files.read_encoder_id`, if it is known.
    """
    look, step = build_step_models(caption_model)
    notes = (
        fingerprint(caption_model),
        vocabulary.fingerprint,
        longest_caption,
        look.input_shape[-1],
        step.input_shape[1][-1],
    )
    notes = dict(zip(DECODER_METADATA_KEYS, notes, strict=True))
    if encoder_id:
        notes[ENCODER_ID_KEY] = encoder_id
    _export(look, folder / DECODER_PREFILL, notes)
    _export(step, folder / DECODER_STEP, notes)


def _export(model: keras.Model, path: Path, notes: dict) -> None:
    """Writes a neighbour first, and puts it in the place of what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="saving-") as temporary:
        exported = Path(temporary, "exported.xml")
        model.export(str(exported), format="openvino", verbose=False)
        network = read_network(exported)
        if len(network.outputs) > len(model.outputs):
            _remove_stray_outputs(network)
        for key, value in notes.items():
            network.set_rt_info(value, ["captioning", key])
        compact = Path(temporary, path.name)
        openvino.save_model(network, compact, compress_to_fp16=True)
        replace_network(compact, path)


def _remove_stray_outputs(network: openvino.Model) -> None:
    """Swish keeps its input for a gradient, which OpenVINO takes for an output of the network."""
    for result in network.get_results():
        if not any(map(_OUTPUT_NAME.fullmatch, result.input_value(0).get_names())):
            network.remove_result(result)
