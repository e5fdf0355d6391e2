"""Exported networks on disk: their files, what is noted in them, and how OpenVINO runs them.

`captioning.export.keras_to_openvino` writes the files that are read here.
"""

import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from captioning.inference.runtime import openvino
from captioning.settings import DEFAULT_ENCODER

ENCODER = "encoder.xml"
DECODER_PREFILL = "decoder_prefill.xml"
DECODER_STEP = "decoder_step.xml"

# What both decoder files say of themselves: which export they are of, the vocabulary, the limit of
# the search in words, the features that they want, the units of the LSTM.
DECODER_METADATA_KEYS = ("weights", "vocabulary", "longest_caption", "feature_width", "units")

# What an encoder says of itself, and a decoder of the encoder that it was trained on.
ENCODER_ID_KEY = "encoder"

_OFTEN = 256  # rows seen in one shape; to compile for it takes as long as so many rows gain


def read_network(path: Path) -> openvino.Model:
    """Reads an exported network. Raises FileNotFoundError or ValueError if it is not all there."""
    if not path.exists():
        raise FileNotFoundError(
            f"There is no {path}. Name the folder that holds the exported model, "
            "or train one with the notebook."
        )
    try:
        return _core().read_model(path)
    except RuntimeError as error:
        raise ValueError(
            f"{path} or the .bin file beside it is damaged or missing. Fetch both again, or export "
            "the model anew."
        ) from error


def copy_network(source: Path, target: Path) -> None:
    """Copies an exported network, .xml and .bin, to where there is none, nor one in use."""
    for suffix in (".bin", ".xml"):
        shutil.copyfile(source.with_suffix(suffix), target.with_suffix(suffix))


def replace_network(source: Path, target: Path) -> None:
    """Moves an exported network, .xml and .bin, to where another may lie. The old .xml goes first
    and the new one comes last, so that none ever lies on the weights of another."""
    target.unlink(missing_ok=True)
    source.with_suffix(".bin").replace(target.with_suffix(".bin"))
    source.replace(target)


def read_encoder_id(network: openvino.Model) -> str | None:
    """Which encoder an exported network is, or was trained on: its name in `keras.applications`, a
    fingerprint of its weights and, if it was quantised, the form that they have now, as "Xception
    0123456789abcdef int8". None if it was exported before encoders were noted."""
    path = ["captioning", ENCODER_ID_KEY]
    return str(network.get_rt_info(path).value) if network.has_rt_info(path) else None


def encoder_name(encoder_id: str | None) -> str:
    """The name in an identity; before encoders were named, all were what is now the default."""
    return (encoder_id or DEFAULT_ENCODER).split()[0]


def without_precision(encoder_id: str) -> str:
    """The identity, whatever form its weights have: quantised, an encoder is still the same."""
    return " ".join(encoder_id.split()[:2])


def is_other_encoder(trained_on: str | None, encoder_id: str | None) -> bool:
    """Whether a decoder was trained on another encoder than the one given, in whichever form: by
    name and fingerprint, or by name if that is all that is known of one of them."""
    if None in (trained_on, encoder_id):
        return False
    pairs = zip(without_precision(trained_on).split(), encoder_id.split(), strict=False)
    return any(wanted != received for wanted, received in pairs)


def image_size(network: openvino.Model) -> tuple[int, int]:
    """Height and width of the images that an encoder wants."""
    _, height, width, _ = network.input(0).partial_shape
    return height.get_length(), width.get_length()


def compile_network(network: openvino.Model, precision: str = "f32") -> openvino.CompiledModel:
    """Ready to run, in `precision`: "f32", or "bf16", which is faster where there are units for it.
    Left to itself, the processor would choose, and captions differ between machines."""
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    return _core().compile_model(network, "CPU", options)


class ShapeByShape:
    """A network of one input at work, in float32: an array (rows, ...) in, its outputs out.

    It is compiled anew for a shape that came often: where OpenVINO knows all sizes, it merges
    operations. What the decoder sees of four images takes it a quarter less, and was the same to
    the last bit.
    """

    def __init__(self, network: openvino.Model):
        self._network = network
        self._of_any_shape = compile_network(network)
        self._of_shape: dict[tuple[int, ...], openvino.CompiledModel] = {}
        self._came: Counter[tuple[int, ...]] = Counter()

    def __call__(self, array: np.ndarray) -> tuple[np.ndarray, ...]:
        self._came[array.shape] += len(array)
        if self._came[array.shape] >= _OFTEN and array.shape not in self._of_shape:
            network = self._network.clone()
            network.reshape(array.shape)
            self._of_shape[array.shape] = compile_network(network)
        return self._of_shape.get(array.shape, self._of_any_shape)(array).to_tuple()


def read_decoder_metadata(network: openvino.Model, path: Path) -> dict[str, str]:
    """What `captioning.export.keras_to_openvino` wrote into the file beside the network."""
    try:
        return {
            key: str(network.get_rt_info(["captioning", key]).value)
            for key in DECODER_METADATA_KEYS
        }
    except RuntimeError as error:
        raise ValueError(
            f"{path} was not written by this program, or by an older one: it does not name its "
            "vocabulary. Export the model anew."
        ) from error


@cache
def _core() -> openvino.Core:
    core = openvino.Core()
    # Weights are read, not mapped, so that the files may be replaced while a model is in use.
    core.set_property({"ENABLE_MMAP": False})
    return core
