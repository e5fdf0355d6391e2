"""How fast are features extracted? From image files to what training reads, on both sides.

The tutorial runs in processes of its own, and the program in one without Keras, as in use: the
threads of the one would be in the way of the other's.
"""

import tempfile
from pathlib import Path

from benchmarks.findings import Finding, Target
from benchmarks.fresh import worker_process
from benchmarks.plan import Plan
from benchmarks.timing import Work, seconds_a_piece
from benchmarks.tutorial_work import build_encoding
from benchmarks.world import photographs
from captioning.export.provide_encoder import provide_encoder
from captioning.inference.extract_features import extract_feature_maps
from captioning.inference.processor import has_bfloat16_units
from captioning.paths import Paths

_IMAGES = 256  # a round for the program
_BATCH = 32  # images, for Keras: a round has one batch, and a quarter as many images one by one


def run(plan: Plan) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder), _IMAGES, plan.root)
        with (
            worker_process(build_encoding, paths[: _BATCH // 4], 1) as one_by_one,
            worker_process(build_encoding, paths[:_BATCH], _BATCH) as in_batches,
        ):
            return measure(paths, Path(folder), one_by_one, in_batches, plan.rounds)


def measure(
    paths: list[Path], folder: Path, one_by_one: Work, in_batches: Work, rounds: int
) -> list[Finding]:
    encoder = provide_encoder(Paths().models)

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
