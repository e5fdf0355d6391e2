"""How many images a second are captioned, beam 3, and what does the search cost of it?

The tutorial has a process of its own. In this one there is neither Keras nor TensorFlow, as in that
of whoever captions: beside them the search was slower by a fifth.
"""

import tempfile
from itertools import chain
from pathlib import Path

import numpy as np

from benchmarks.findings import Finding, Target
from benchmarks.fresh import worker_process
from benchmarks.plan import Plan
from benchmarks.timing import Work, seconds_a_piece
from benchmarks.tutorial_work import build_captioning
from benchmarks.world import photographs
from captioning.inference.captioner import Captioner
from captioning.inference.encode_images import encode_images
from captioning.inference.networks import SEARCH_BATCH_SIZE

_IMAGES = 256
_TUTORIAL_IMAGES = 3  # a round


def run(plan: Plan) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder), _IMAGES, plan.root)
        with worker_process(build_captioning, paths[:_TUTORIAL_IMAGES]) as theirs:
            return measure(Captioner.load(), paths, theirs, plan.rounds)


def measure(captioner: Captioner, paths: list[Path], theirs: Work, rounds: int) -> list[Finding]:
    """From files to captions on both sides, and the two halves of the program's way."""

    def caption() -> int:
        return sum(1 for _ in captioner.caption_files(paths))

    def encode() -> int:
        return sum(len(batch) for batch in encode_images(captioner.encoder, paths))

    encoded = chain.from_iterable(encode_images(captioner.encoder, paths))
    maps = np.stack([features for _, features in encoded])

    def search() -> int:
        return len(captioner.decoder.caption(maps))

    for work in (theirs, caption, search):
        work()
    their_seconds, caption_seconds, encode_seconds, search_seconds = seconds_a_piece(
        theirs, caption, encode, search, rounds=rounds
    )
    images = caption_seconds.map(lambda seconds: 1 / seconds)
    their_rate = f"{their_seconds.map(lambda seconds: 1 / seconds)} images/s"
    return [
        Finding("many images, beam 3", images, "images/s", Target(30), their_rate),
        Finding(
            "many images, beside the usual tutorial",
            their_seconds.over(caption_seconds),
            "times",
            None,
            their_rate,
            f"{images} images/s",
        ),
        Finding(
            f"the search, {SEARCH_BATCH_SIZE} images at once, beside the encoder",
            search_seconds.over(encode_seconds).map(lambda share: 100 * share),
            "% of the encoder's time",
            Target(10, is_limit=True),
            "",
            f"{search_seconds.map(lambda seconds: 1000 * seconds)} ms an image, the encoder "
            f"{encode_seconds.map(lambda seconds: 1000 * seconds)} ms",
        ),
    ]
