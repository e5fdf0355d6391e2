"""How much of the processor's speed does the encoder use?

Xception takes 8.4 billion multiply-adds for an image of 299x299. Chains of matrix products show how
many this processor manages; the rest of Xception is what keeps the encoder from that limit.
"""

import os
import platform
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.data import photographs
from benchmarks.measure import Options, Task, Work, items_per_second
from benchmarks.table import Row

XCEPTION_MULTIPLY_ADDS = 8.4e9  # an image
_UNITS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8")
_SIZE, _CHAIN = 1024, 8  # rows and columns of a matrix, products in a chain
_IMAGES = 32


def machine(options: Options) -> list[Row]:
    precisions = ["float32", "int8"]
    if "avx512_bf16" in units():
        precisions.append("bfloat16")
    with tempfile.TemporaryDirectory() as folder:
        images, *products = items_per_second(
            Task("benchmarks.program:encode", photographs(Path(folder), _IMAGES, options.images)),
            *(Task("benchmarks.machine:multiply", precision) for precision in precisions),
            rounds=options.rounds,
        )
    rows = []
    for precision, multiply_adds in zip(precisions, products, strict=True):
        limit = multiply_adds.map(lambda rate: rate / XCEPTION_MULTIPLY_ADDS)
        share = (images / limit).map(lambda ratio: 100 * ratio)
        name = f"the encoder's speed, of that of matrix products in {precision}"
        rows.append(Row(name, share, "%", note=f"{images} of {limit} images/s"))
    return rows


def multiply(precision: str, size: int = _SIZE) -> Work:
    """A chain of matrix products in OpenVINO; an item is one multiply-add."""
    from captioning.inference.openvino_runtime import openvino

    ops = openvino.opset13
    random = np.random.default_rng(0)
    matrix = parameter = ops.parameter([size, size], np.float32)
    for _ in range(_CHAIN):
        if precision == "int8":
            matrix = ops.fake_quantize(matrix, *map(np.float32, (0, 255, 0, 255)), levels=256)
            integers = random.integers(-127, 128, (size, size), dtype="int8")
            weights = ops.multiply(ops.convert(ops.constant(integers), "f32"), np.float32(1 / size))
        else:
            weights = ops.constant(random.standard_normal((size, size), "float32") / size)
        matrix = ops.matmul(matrix, weights, False, False)
    hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"}
    network = openvino.Core().compile_model(openvino.Model([matrix], [parameter]), "CPU", hint)
    request = network.create_infer_request()
    request.set_input_tensor(openvino.Tensor(random.random((size, size), "float32")))

    def work() -> int:
        request.infer()
        return _CHAIN * size**3

    return work


def name() -> str:
    """The machine in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processor = _cpuinfo("model name") or platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{cores} cores of {processor} ({', '.join(units()) or 'units unknown'}), "
        f"{memory:.0f} GB of memory, {platform.system()}, Python {platform.python_version()}"
    )


def units() -> list[str]:
    """The processor's units for fast arithmetic, as far as Linux lists them."""
    flags = _cpuinfo("flags").split()
    return [unit for unit in _UNITS if unit in flags]


def _cpuinfo(key: str) -> str:
    """What Linux says about the first core; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        field, _, value = line.partition(":")
        if field.strip() == key:
            return value.strip()
    return ""
