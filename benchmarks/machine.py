"""How much of the processor's speed does the encoder use, and in which runtime is it the fastest?

Xception takes 8.4 billion multiply-adds for an image of 299x299. Chains of matrix products show how
many multiply-adds this processor manages; the other operations of Xception keep the encoder from
that limit.
"""

import os
import platform
import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.data import provide_photographs
from benchmarks.measure import Work, call, seconds_per_item
from benchmarks.table import Row, summarise

XCEPTION_MULTIPLY_ADDS = 8.4e9  # an image
_UNITS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8")
_SIZE, _CHAIN = 1024, 8  # rows and columns of a matrix, products in a chain
_IMAGES = 32
_BATCH_SIZE = 32  # images, for `runtimes`


def machine(options: Namespace) -> list[Row]:
    """How much of the processor's speed does the encoder use?"""
    precisions = ["float32", "int8"]
    if "avx512_bf16" in list_units():
        precisions.append("bfloat16")
    paths = provide_photographs(options.folder, _IMAGES, options.images)
    images, *products = 1 / seconds_per_item(
        ("benchmarks.program:encode", paths),
        *(("benchmarks.machine:multiply", precision) for precision in precisions),
        rounds=options.rounds,
    )
    rows = []
    for precision, multiply_adds in zip(precisions, products, strict=True):
        limit = multiply_adds / XCEPTION_MULTIPLY_ADDS
        name = f"the encoder's speed, as a share of the speed of matrix products in {precision}"
        note = f"{summarise(images)} of {summarise(limit)} images/s"
        rows.append(Row(name, 100 * images / limit, "%", note=note))
    return rows


def multiply(precision: str) -> Work:
    """A chain of matrix products in OpenVINO; an item is one multiply-add."""
    from captioning.inference.openvino_runtime import Network, compile_network, openvino

    ops = openvino.opset13
    random = np.random.default_rng(0)
    shape = (_SIZE, _SIZE)
    matrix = parameter = ops.parameter(shape, np.float32)
    for _ in range(_CHAIN):
        weights = ops.constant(random.standard_normal(shape, "float32") / _SIZE)
        if precision == "int8":
            matrix = ops.fake_quantize(matrix, *map(np.float32, (0, 255, 0, 255)), levels=256)
            weights = ops.fake_quantize(weights, *map(np.float32, (-1, 1, -1, 1)), levels=255)
        matrix = ops.matmul(matrix, weights, False, False)
    network = openvino.Model([ops.reduce_max(matrix, [0, 1])], [parameter])
    run = Network(compile_network(network, "bf16" if precision == "bfloat16" else "f32"))
    inputs = random.random(shape, "float32")

    def work() -> int:
        run([inputs])
        return _CHAIN * _SIZE**3

    return work


def runtimes(options: Namespace) -> list[Row]:
    """In which runtime is the encoder the fastest? (only if named)"""
    call("benchmarks.machine:export_xception", options.folder)
    in_keras, in_openvino = "benchmarks.machine:encode_in_keras", "benchmarks.machine:encode"
    tasks = {
        "TensorFlow, float32": (in_keras, "tensorflow", "float32"),
        "TensorFlow, bfloat16": (in_keras, "tensorflow", "mixed_bfloat16"),
        "Keras's OpenVINO backend, float32": (in_keras, "openvino", "float32"),
        "OpenVINO, float32": (in_openvino, options.folder, "f32"),
        "OpenVINO, bfloat16": (in_openvino, options.folder, "bf16"),
    }
    first, *others = 1 / seconds_per_item(*tasks.values(), rounds=options.rounds)
    first_name, *names = tasks
    return [
        Row(f"the encoder in {name}, against {first_name}", rate, "images/s", first)
        for name, rate in zip(names, others, strict=True)
    ]


def export_xception(folder: str) -> None:
    """Writes Xception with random weights."""
    from captioning.export.keras_to_openvino import export_encoder
    from captioning.models.image_encoder import build_encoder

    export_encoder(build_encoder("Xception", weights=None), Path(folder))


def encode_in_keras(backend: str, precision: str) -> Work:
    """Encodes noise with Xception in Keras."""
    os.environ["KERAS_BACKEND"] = backend
    import keras

    from captioning.models.image_encoder import build_encoder

    keras.config.set_dtype_policy(precision)
    return _encode_noise(build_encoder("Xception", weights=None).predict_on_batch)


def encode(folder: Path, precision: str) -> Work:
    """Encodes noise with the exported Xception in OpenVINO."""
    from captioning.inference.encoder import Encoder

    return _encode_noise(Encoder(folder, precision))


def _encode_noise(network: Callable[[np.ndarray], np.ndarray]) -> Work:
    images = np.random.default_rng(0).integers(0, 256, (_BATCH_SIZE, 299, 299, 3), dtype="uint8")
    return lambda: len(network(images))


def describe_machine() -> str:
    """The machine in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processor = _read_cpuinfo("model name") or platform.processor() or platform.machine()
    units = ", ".join(list_units()) or "units unknown"
    python = f"{platform.system()}, Python {platform.python_version()}"
    return f"{cores} cores of {processor} ({units}), {python}"


def list_units() -> list[str]:
    """The processor's units for fast arithmetic, as far as Linux lists them."""
    flags = _read_cpuinfo("flags").split()
    return [unit for unit in _UNITS if unit in flags]


def _read_cpuinfo(key: str) -> str:
    """A value for the first core from `/proc/cpuinfo`; empty where there is none."""
    path = Path("/proc/cpuinfo")
    match = path.exists() and re.search(rf"(?m)^{key}\s*: (.*)$", path.read_text())
    return match[1] if match else ""
