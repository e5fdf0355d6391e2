"""Which runtime is the fastest for the encoder? Xception with random weights, images in memory."""

import os
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import Options, Task, Work, call_in_process, items_per_second
from benchmarks.table import Row

_BATCH_SIZE, _BATCHES = 8, 4
# Name -> runtime and precision.
RUNTIMES = {
    "TensorFlow, float32": ("tensorflow", "float32"),
    "TensorFlow, bfloat16": ("tensorflow", "mixed_bfloat16"),
    "Keras's OpenVINO backend, float32": ("keras on openvino", "float32"),
    "OpenVINO, float32": ("openvino", "f32"),
    "OpenVINO, bfloat16": ("openvino", "bf16"),
}


def runtimes(options: Options) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        call_in_process("benchmarks.runtimes:export_xception", Path(folder))
        first, *others = items_per_second(
            *(Task("benchmarks.runtimes:encode", name, Path(folder)) for name in RUNTIMES),
            rounds=options.rounds,
        )
    first_name, *names = RUNTIMES
    return [
        Row(f"the encoder in {name}, against {first_name}", rate, "images/s", first)
        for name, rate in zip(names, others, strict=True)
    ]


def export_xception(folder: Path) -> None:
    from captioning.export.keras_to_openvino import export_encoder
    from captioning.models.image_encoder import build_encoder

    export_encoder(build_encoder("Xception", weights=None), folder)


def encode(name: str, folder: Path) -> Work:
    """Encodes a few batches of noise."""
    runtime, precision = RUNTIMES[name]
    if runtime == "openvino":
        from captioning.inference.networks import Encoder

        network = Encoder(folder, precision)
    else:
        os.environ["KERAS_BACKEND"] = runtime.split()[-1]
        import keras

        from captioning.models.image_encoder import build_encoder

        keras.config.set_dtype_policy(precision)
        encoder = build_encoder("Xception", weights=None)

        def network(images: np.ndarray) -> np.ndarray:
            return encoder.predict(images, batch_size=_BATCH_SIZE, verbose=0)

    images = np.random.default_rng(0).integers(0, 256, (_BATCH_SIZE, 299, 299, 3), dtype="uint8")

    def work() -> int:
        for _ in range(_BATCHES):
            network(images)
        return _BATCHES * _BATCH_SIZE

    return work
