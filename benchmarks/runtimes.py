"""Which runtime runs the encoder fastest? The candidates in turn, each in a process of its own.

Xception with random weights, images in memory, batches of eight. ONNX Runtime wants `onnxruntime`,
`onnx` and `tf2onnx`, which the program does not; it is left out where they are missing.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from benchmarks.findings import Finding
from benchmarks.fresh import in_fresh_process, run_fresh
from benchmarks.plan import Plan
from benchmarks.timing import Spread
from captioning.paths import Paths

_BATCH, _BATCHES = 8, 4
_TUTORIAL = "TensorFlow, float32"


def run(plan: Plan) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        names = in_fresh_process(_prepare, Path(folder))
        return measure(names, Path(folder), plan.rounds)


def measure(names: list[str], folder: Path, rounds: int) -> list[Finding]:
    """Images a second of each candidate, beside the first of them."""
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, of_name in rates.items():
            command = [sys.executable, "-m", "benchmarks.runtimes", name, str(folder)]
            of_name.append(float(run_fresh(command, Paths().root).output.split()[-1]))
    theirs = Spread(tuple(rates[_TUTORIAL]))
    spreads = {name: Spread(tuple(of_name)) for name, of_name in rates.items()}
    return [
        Finding(f"the encoder in {name}", of.over(theirs), "times", None, "", f"{of} images/s")
        for name, of in spreads.items()
    ]


def _prepare(folder: Path) -> list[str]:
    """Exports the encoder for all candidates that can be had, and returns their names."""
    from captioning.export.keras_to_openvino import export_encoder
    from captioning.models.image_encoder import build_encoder

    encoder = build_encoder("Xception", weights=None)
    export_encoder(encoder, folder)
    names = list(_CANDIDATES)
    if all(map(find_spec, ("onnxruntime", "onnx", "tf2onnx"))):
        encoder.export(str(folder / "encoder.onnx"), format="onnx", verbose=False)
    else:
        names.remove("ONNX Runtime, float32")
        print("left out: ONNX Runtime, which is not installed", file=sys.stderr)
    return names


def _keras(precision: str, backend: str = "tensorflow") -> Callable:
    def load(folder: Path) -> Callable:
        os.environ["KERAS_BACKEND"] = backend
        import keras

        keras.config.set_dtype_policy(precision)
        from captioning.models.image_encoder import build_encoder

        encoder = build_encoder("Xception", weights=None)
        return lambda images: encoder.predict(images, batch_size=_BATCH, verbose=0)

    return load


def _openvino(precision: str) -> Callable:
    def load(folder: Path) -> Callable:
        from captioning.inference.network_files import ENCODER, compile_network, read_network

        return compile_network(read_network(folder / ENCODER), precision)

    return load


def _onnx(folder: Path) -> Callable:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "encoder.onnx")
    (given,) = session.get_inputs()
    return lambda images: session.run(None, {given.name: images})


_CANDIDATES = {
    _TUTORIAL: _keras("float32"),
    "TensorFlow, bfloat16": _keras("mixed_bfloat16"),
    "Keras's OpenVINO backend, float32": _keras("float32", "openvino"),
    "OpenVINO, float32": _openvino("f32"),
    "OpenVINO, bfloat16": _openvino("bf16"),
    "ONNX Runtime, float32": _onnx,
}


def main(name: str, folder: str) -> None:
    """Prints the images a second of one candidate."""
    encode = _CANDIDATES[name](Path(folder))
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (_BATCH, 299, 299, 3), dtype="uint8")
    encode(images)
    start = time.perf_counter()
    for _ in range(_BATCHES):
        encode(images)
    print(_BATCH * _BATCHES / (time.perf_counter() - start))


if __name__ == "__main__":
    main(*sys.argv[1:])
