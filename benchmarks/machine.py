"""What this machine could do at best: how fast it multiplies matrices, and how much of that the
encoder makes use of.

Xception takes 8.4 billion multiply-adds an image of 299x299; the rest of it, and everything that is
not arithmetic, is what keeps the encoder from the limit.
"""

import os
import platform
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.findings import Finding
from benchmarks.plan import Plan
from benchmarks.timing import Work, seconds_a_piece
from benchmarks.world import photographs
from captioning.inference.captioner import Captioner
from captioning.inference.encode_images import encode_images
from captioning.inference.processor import cores, has_bfloat16_units
from captioning.inference.runtime import openvino

MULTIPLY_ADDS = 8.4e9  # of Xception, an image
_UNITS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_SIZE, _CHAIN = 1024, 8  # matrices of so many rows and columns, so many products one after another
_IMAGES = 32


def units() -> list[str]:
    """What the processor has for fast arithmetic; nothing where the system does not tell."""
    flags = _cpuinfo("flags").split()
    return [unit for unit in _UNITS if unit in flags]


def name() -> str:
    """The machine in a line."""
    processor = _cpuinfo("model name") or platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{cores()} cores of {processor} ({', '.join(units()) or 'units unknown'}), "
        f"{memory:.0f} GB of memory, {platform.system()}, Python {platform.python_version()}"
    )


def run(plan: Plan) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        return measure(photographs(Path(folder), _IMAGES, plan.root), plan.rounds)


def measure(paths: list[Path], rounds: int, size: int = _SIZE) -> list[Finding]:
    """Matrix rates and the encoder in turn."""
    encoder = Captioner.load().encoder

    def encode() -> int:
        return sum(len(batch) for batch in encode_images(encoder, paths))

    precisions = {"float32": "f32", "int8": "f32"}
    if has_bfloat16_units():
        precisions["bfloat16"] = "bf16"
    products = [
        _matrix_products(size, hint, is_int8=precision == "int8")
        for precision, hint in precisions.items()
    ]
    for work in (encode, *products):
        work()
    an_image, *a_multiply_add = seconds_a_piece(encode, *products, rounds=rounds)
    images = an_image.map(lambda seconds: 1 / seconds)
    findings = []
    for precision, seconds in zip(precisions, a_multiply_add, strict=True):
        rate = seconds.map(lambda one: 1e-9 / one)
        at_best = rate.map(lambda one: one * 1e9 / MULTIPLY_ADDS)
        findings.append(
            Finding(
                f"the encoder's share of what matrix products in {precision} reach",
                images.over(at_best).map(lambda share: 100 * share),
                "%",
                product=f"{images} images/s; the products, {rate} billion multiply-adds a second, "
                f"would be enough for {at_best}",
            )
        )
    return findings


def _matrix_products(size: int, precision: str, is_int8: bool) -> Work:
    """Multiplies in OpenVINO, which captions as well; a piece is one multiply-add."""
    ops = openvino.opset13
    random = np.random.default_rng(0)
    matrix = given = ops.parameter([size, size], np.float32)
    for _ in range(_CHAIN):
        if is_int8:
            matrix = ops.fake_quantize(matrix, *map(np.float32, (0, 255, 0, 255)), levels=256)
            whole = random.integers(-127, 128, (size, size), dtype="int8")
            weights = ops.multiply(ops.convert(ops.constant(whole), "f32"), np.float32(1 / size))
        else:
            weights = ops.constant(random.standard_normal((size, size), "float32") / size)
        matrix = ops.matmul(matrix, weights, False, False)
    network = openvino.Core().compile_model(
        openvino.Model([matrix], [given]), "CPU", {"INFERENCE_PRECISION_HINT": precision}
    )
    request = network.create_infer_request()
    request.set_input_tensor(openvino.Tensor(random.random((size, size), "float32")))

    def multiply() -> int:
        request.infer()
        return _CHAIN * size**3

    return multiply


def _cpuinfo(key: str) -> str:
    """What Linux says of the first core."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""
