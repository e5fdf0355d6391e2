"""Keras models in, what captioning runs out: in memory while training, in files afterwards.

The files hold float16 weights and need no Keras; `captioning.inference` reads them, and a test
holds both sides equal.
"""

import hashlib
import re
import tempfile
from pathlib import Path

import keras

from captioning.inference import Decoder, Encoder
from captioning.networks import (
    DECODER_LOOK,
    DECODER_STEP,
    ENCODER,
    ENCODER_NOTE,
    NOTES,
    read_network,
    replace_network,
)
from captioning.processor import encoding_precision
from captioning.runtime import openvino
from captioning.search_models import build_search_models
from captioning.side_by_side import SideBySide
from captioning.text import Vocabulary

# What TensorFlow calls the outputs of a function.
_OUTPUT_NAME = re.compile(r"Identity(_\d+)?:0")


def export_encoder(encoder: keras.Model, folder: Path) -> None:
    """Writes `encoder.xml` and `encoder.bin`: see `captioning.inference.Encoder`. They hold its
    name and fingerprint, which those of the same weights share, however coarsely exported."""
    _export(encoder, folder / ENCODER, {ENCODER_NOTE: identify_encoder(encoder)})


def identify_encoder(encoder: keras.Model) -> str:
    """As `captioning.networks.read_encoder_identity` finds it in the exported file."""
    return f"{encoder.name} {fingerprint(encoder)}"


def fingerprint(model: keras.Model) -> str:
    """Equal for equal weights, as they are in Keras, before any are rounded."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(keras.ops.convert_to_numpy(weight).tobytes())
    return digest.hexdigest()[:16]


def as_encoder(encoder: keras.Model) -> Encoder:
    """The encoder as it is in memory, in the form in which many images are seen."""
    with tempfile.TemporaryDirectory() as folder:
        export_encoder(encoder, Path(folder))
        return Encoder(Path(folder), encoding_precision())


def as_decoder(caption_model: keras.Model, vocabulary: Vocabulary, longest_caption: int) -> Decoder:
    """The caption model as it is in memory, in the form in which captions are searched for."""
    look, step = build_search_models(caption_model)
    for network in (look, step):
        network.compile(jit_compile=False)  # rows differ, and XLA compiles every number of them
    ask_look, ask_step = (SideBySide(network).predict_on_batch for network in (look, step))
    return Decoder(
        lambda features: keras.tree.flatten(ask_look(features)),
        ask_step,
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
    encoder_identity: str | None = None,
) -> None:
    """Writes the caption model as `decoder_look` and `decoder_step`, `.xml` and `.bin` each.

    Both files name what belongs to them, so that nothing else is used with them, and hold
    `longest_caption` in words, the limit of the search. `encoder_identity`: that of the training's
    features, as of `captioning.networks.read_encoder_identity`, if it is known.
    """
    look, step = build_search_models(caption_model)
    notes = (
        fingerprint(caption_model),
        vocabulary.fingerprint,
        longest_caption,
        look.input_shape[-1],
        step.input_shape[1][-1],
    )
    notes = dict(zip(NOTES, notes, strict=True))
    if encoder_identity:
        notes[ENCODER_NOTE] = encoder_identity
    _export(look, folder / DECODER_LOOK, notes)
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
