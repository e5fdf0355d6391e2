"""How fast are features extracted? From image files to what training reads, on both sides.

A batch of many is predicted by `predict_on_batch`: `predict` at times waits for TensorFlow's
autotuner of input pipelines, up to a minute at its end, which is little among thousands of images,
and a third of a round.
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks import tutorial
from benchmarks.findings import Finding, Target
from benchmarks.plan import Plan
from benchmarks.timing import seconds_a_piece
from benchmarks.world import photographs
from captioning.encoder import provide_encoder
from captioning.features import extract_feature_maps
from captioning.processor import has_bfloat16_units
from captioning.settings import Files

_IMAGES = 64  # a round for the program, half of them for Keras in batches
_BATCH = 32


def run(plan: Plan) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        return measure(photographs(Path(folder), _IMAGES, plan.root), Path(folder), plan.rounds)


def measure(paths: list[Path], folder: Path, rounds: int) -> list[Finding]:
    keras_encoder = tutorial.build_encoder()
    encoder = provide_encoder(Files().models)

    def one_by_one() -> int:
        some = paths[: _BATCH // 4]
        for path in some:
            keras_encoder.predict(tutorial.load_image(path), verbose=0)
        return len(some)

    def in_batches() -> int:
        images = np.concatenate([tutorial.load_image(path) for path in paths[:_BATCH]])
        keras_encoder.predict_on_batch(images)
        return len(images)

    def product() -> int:
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            names = [path.name for path in paths]
            return len(
                extract_feature_maps(encoder, paths[0].parent, names, Path(fresh, "maps.bin"))
            )

    for work in (one_by_one, in_batches, product):
        work()  # the first time, graphs are made
    single, batched, ours = seconds_a_piece(one_by_one, in_batches, product, rounds=rounds)
    single_rate, batched_rate, our_rate = (
        f"{each.map(lambda seconds: 1 / seconds)} images/s" for each in (single, batched, ours)
    )
    return [
        Finding(
            "feature extraction, beside `predict` of one image",
            single.over(ours),
            "times",
            None,
            single_rate,
            our_rate,
        ),
        Finding(
            f"feature extraction, beside `predict` with batches of {_BATCH}",
            batched.over(ours),
            "times",
            Target(5 if has_bfloat16_units() else 1.5),
            batched_rate,
            our_rate,
        ),
    ]
