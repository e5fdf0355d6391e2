"""OpenVINO: compiles, runs and writes networks, and reads and writes the metadata in them.
`captioning.inference.network_files` reads their files.

Imports OpenVINO without side effects on the program that uses this package: without telemetry,
without its converter, and without entries left behind in `sys.modules`.
"""

import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import ENOSPC
from functools import cache
from pathlib import Path

import numpy as np

from captioning.errors import UserError
from captioning.settings import DEFAULT_ENCODER

# Metadata of both decoder files: the fingerprints of the weights and of the vocabulary, the limit
# of the search in words, the width of the features and the units of the LSTM.
DECODER_METADATA_KEYS = ("weights", "vocabulary", "longest_caption", "feature_width", "units")

# Metadata of an encoder (its own ID) and of a decoder (the ID of the encoder it was trained with).
ENCODER_ID_KEY = "encoder"

_SECTION = "captioning"  # all metadata is below this key

_TELEMETRY = "openvino_telemetry"
_CONVERTER = "openvino.tools.ovc"


@contextmanager
def hide_modules(*names: str) -> Iterator[None]:
    """Makes `import NAME` raise ImportError inside the block; restores `sys.modules` after it."""
    hidden = {name: sys.modules[name] for name in names if name in sys.modules}
    sys.modules.update(dict.fromkeys(names))
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


@contextmanager
def without_telemetry() -> Iterator[None]:
    """A block, or a decorator. OpenVINO's converter and NNCF, first imported inside it, send no
    telemetry over the network."""
    with hide_modules(_TELEMETRY):
        yield


def _import_openvino():
    """Imports OpenVINO without its converter, which takes a third of the import time (more where
    TensorFlow is installed) and starts the process that sends telemetry. `openvino.convert_model`
    still works: it imports the converter when it is first used, as in Keras's export."""
    if "openvino" in sys.modules:  # the host has imported it, with its converter
        import openvino

        return openvino
    with hide_modules(_CONVERTER):
        import openvino

    def __getattr__(name: str):  # called for names that a module lacks (PEP 562)
        if name != "convert_model":
            raise AttributeError(f"module 'openvino' has no attribute {name!r}")
        from openvino.tools.ovc import convert_model

        openvino.convert_model = convert_model
        return convert_model

    openvino.__getattr__ = __getattr__
    return openvino


openvino = _import_openvino()


class Network:
    """A compiled network that any number of threads may call at once.

    Takes arrays in the order of the network's inputs and returns arrays in the order of its
    outputs, which the caller may keep. Each running call uses its own inference request: OpenVINO
    refuses to start a busy one, and its outputs are views of memory that the next call overwrites.
    """

    def __init__(self, compiled: openvino.CompiledModel, path: Path | None = None):
        """A network from the file `path` that cannot run raises a UserError with its name."""
        self._compiled = compiled
        self._path = path
        self._idle: deque[openvino.InferRequest] = deque()  # its pop and append are thread-safe

    def __call__(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        with damage_as_user_error(self._path):
            results = request.infer(list(inputs), share_inputs=True, share_outputs=False)
        outputs = results.to_tuple()
        self._idle.append(request)  # a request that failed is not used again
        return outputs


def damaged_network(path: Path) -> UserError:
    """Returns the error for files that are not a network."""
    return UserError(
        f"Expected a network in {path} and in the .bin file beside it, got a missing or "
        "damaged one. Fetch both again, or export the model again."
    )


@contextmanager
def damage_as_user_error(path: Path | None) -> Iterator[None]:
    """Turns an error of OpenVINO inside the block into a UserError about the network in `path`."""
    try:
        yield
    except (RuntimeError, UnicodeDecodeError) as error:  # a message may quote damaged bytes
        if path is None:
            raise
        raise damaged_network(path) from error


def compile_network(network: openvino.Model, precision: str = "f32") -> openvino.CompiledModel:
    """Prepares a network to run on the CPU: see `compile_options`."""
    return core().compile_model(network, "CPU", compile_options(precision))


def compile_options(precision: str) -> dict[str, str]:
    """Returns how OpenVINO compiles a network. `precision` of its floating-point layers: "f32", or
    "bf16", which is faster on processors with units for it. OpenVINO's default depends on the
    processor, and so would the captions."""
    return {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}


def limit_threads(threads: int) -> None:
    """Limits each network that this program loads from now on to `threads` threads, which may run
    on any processor. By default a network takes all processors and pins its threads to them, so
    that several programs on one machine would wait for each other."""
    core().set_property("CPU", {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False})


def has_bfloat16_units() -> bool:
    """Whether this processor computes in bfloat16 without conversions."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def encoder_precision() -> str:
    """Returns the fastest precision for extracting features on this processor: "bf16" if it
    `has_bfloat16_units` (the cosine with maps of "f32" is 0.999), else "f32"."""
    return "bf16" if has_bfloat16_units() else "f32"


def write_metadata(network: openvino.Model, metadata: dict[str, object]) -> None:
    """Adds metadata to a network in memory; saving the network writes it."""
    for key, value in metadata.items():
        network.set_rt_info(value, [_SECTION, key])


def read_decoder_metadata(network: openvino.Model, path: Path) -> dict[str, str]:
    """Returns the values of `DECODER_METADATA_KEYS` in a network read from `path`. Raises
    UserError if one is missing."""
    try:
        return {
            key: str(network.get_rt_info([_SECTION, key]).value) for key in DECODER_METADATA_KEYS
        }
    except RuntimeError as error:
        raise UserError(
            f"Expected metadata about the vocabulary in {path}, got none: an older version or "
            "another program wrote it. Export the model again."
        ) from error


def read_encoder_id(network: openvino.Model) -> str | None:
    """Returns the ID of an encoder, or of the encoder that a decoder was trained with: the name in
    `keras.applications`, a fingerprint of the weights and, if they are quantised, their type, such
    as "Xception 0123456789abcdef int8". Returns None for older files without an ID."""
    path = [_SECTION, ENCODER_ID_KEY]
    return str(network.get_rt_info(path).value) if network.has_rt_info(path) else None


def encoder_name(encoder_id: str | None) -> str:
    """Returns the name in an encoder ID; a file without an ID contains the default encoder."""
    return (encoder_id or DEFAULT_ENCODER).split()[0]


def without_precision(encoder_id: str) -> str:
    """Returns the ID without the type of the weights: a quantised encoder is still the same one."""
    return " ".join(encoder_id.split()[:2])


def is_other_encoder(trained_with: str | None, encoder_id: str | None) -> bool:
    """Returns whether a decoder was trained with another encoder than the given one, whatever the
    type of its weights. If an ID lacks a fingerprint, only the names are compared; None matches
    every ID."""
    if None in (trained_with, encoder_id):
        return False
    parts = zip(without_precision(trained_with).split(), encoder_id.split(), strict=False)
    return any(expected_part != part for expected_part, part in parts)


def save_network(network: openvino.Model, path: Path) -> None:
    """Writes a network, .xml and .bin, with weights in 16 bits. Raises OSError on a full disk."""
    with full_disk_as_os_error(path):
        openvino.save_model(network, path, compress_to_fp16=True)


@contextmanager
def full_disk_as_os_error(path: Path) -> Iterator[None]:
    """Turns the error with which OpenVINO reports a full disk into an OSError that names `path`."""
    try:
        yield
    except RuntimeError as error:
        if "iostream" not in str(error):
            raise
        raise OSError(ENOSPC, os.strerror(ENOSPC), str(path)) from error


@cache
def core() -> openvino.Core:
    """Returns OpenVINO's entry point, one for the whole program."""
    return openvino.Core()
