"""Runs exported networks with OpenVINO, from any number of threads.

Imports OpenVINO so that neither this program nor its host notices: no telemetry, no converter of
other networks, nothing left behind in `sys.modules`. Not about which files a model consists of:
see `captioning.inference.network_files`.
"""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

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
    """A block, or a decorator. OpenVINO's converter and NNCF, imported there for the first time, do
    not report to their makers over the network."""
    with hide_modules(_TELEMETRY):
        yield


def _import_openvino():
    """Imports OpenVINO without its converter, which takes a third of the time to import (more where
    TensorFlow is installed) and starts the process that sends telemetry. `openvino.convert_model`
    still works: the converter is imported when it is first used, as Keras does to export."""
    if "openvino" in sys.modules:  # the host's, whole as it is
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

    Arrays in the order of the network's inputs -> arrays in the order of its outputs, which belong
    to the caller. Each call that runs has an inference request of its own: OpenVINO refuses to
    start one that is busy, and its outputs are views of memory that the next call overwrites.
    """

    def __init__(self, compiled: openvino.CompiledModel):
        self._compiled = compiled
        self._idle: deque[openvino.InferRequest] = deque()  # its pop and append are thread-safe

    def __call__(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        outputs = request.infer(list(inputs), share_inputs=True, share_outputs=False).to_tuple()
        self._idle.append(request)  # outputs were copied; a request that failed is not used again
        return outputs


def read_network(path: Path) -> openvino.Model:
    """Reads an exported network, `path` (.xml) and the .bin file beside it. Raises
    FileNotFoundError if it is missing and ValueError if it is damaged."""
    if not path.exists():
        raise FileNotFoundError(
            f"There is no {path}. Name the folder that holds the exported model, or train one."
        )
    try:
        return _core().read_model(path)
    except RuntimeError as error:
        raise ValueError(
            f"{path} or the .bin file beside it is damaged or missing. Fetch both again, or export "
            "the model again."
        ) from error


def compile_network(network: openvino.Model, precision: str = "f32") -> Network:
    """Prepares a network to run on the CPU. `precision` of its floating-point layers: "f32", or
    "bf16", which is faster on processors with units for it. OpenVINO's own choice would depend on
    the processor, and so would the captions."""
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    return Network(_core().compile_model(network, "CPU", options))


def has_bfloat16_units() -> bool:
    """Whether this processor computes in bfloat16 without conversions."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def training_precision() -> str:
    """The fastest Keras dtype policy for training here: "mixed_bfloat16" (twice as fast) where
    `has_bfloat16_units`, else "float32"."""
    return "mixed_bfloat16" if has_bfloat16_units() else "float32"


def encoder_precision() -> str:
    """The fastest precision for extracting features here, for `Encoder`: "bf16" where
    `has_bfloat16_units` (its maps agree with those of "f32" to a cosine of 0.999), else "f32"."""
    return "bf16" if has_bfloat16_units() else "f32"


@cache
def _core() -> openvino.Core:
    core = openvino.Core()
    # Read weights instead of mapping them: files may be replaced while a model is in use.
    core.set_property({"ENABLE_MMAP": False})
    return core
