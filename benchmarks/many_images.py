"""How many images a second are captioned, beam 3, and what does the search cost of it?"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks import tutorial
from benchmarks.findings import Finding, Reach
from benchmarks.plan import Plan
from benchmarks.timing import seconds_a_piece
from benchmarks.world import made_world, photographs
from captioning.captioner import Captioner
from captioning.encoding import encode_files

_IMAGES = 128
_TUTORIAL_IMAGES = 3  # a round
_MAX_LENGTH = 38  # the longest training caption of Flickr8k, its start included


def run(plan: Plan) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder), _IMAGES, plan.root)
        return measure(Captioner.load(), paths, _TUTORIAL_IMAGES, plan.rounds)


def measure(
    captioner: Captioner, paths: list[Path], tutorial_images: int, rounds: int
) -> list[Finding]:
    """From files to captions on both sides, and the two halves of the program's way."""
    vocabulary = made_world(images=1).vocabulary
    keras_encoder = tutorial.build_encoder()
    model = tutorial.build_model(len(vocabulary), _MAX_LENGTH)

    def habit() -> int:
        for path in paths[:tutorial_images]:
            (features,) = keras_encoder.predict(tutorial.load_image(path), verbose=0)
            tutorial.say(model, features, _MAX_LENGTH, tutorial.WORDS_A_CAPTION)
        return tutorial_images

    def caption() -> int:
        return sum(1 for _ in captioner.caption_files(paths))

    def encode() -> int:
        return sum(len(batch) for batch in encode_files(captioner.encoder, paths))

    batches = [
        np.stack([features for _, features in batch])
        for batch in encode_files(captioner.encoder, paths)
    ]

    def search() -> int:
        return sum(len(captioner.decoder.caption(features)) for features in batches)

    for work in (habit, caption, search):
        work()
    habit_seconds, caption_seconds, encode_seconds, search_seconds = seconds_a_piece(
        habit, caption, encode, search, rounds=rounds
    )
    images = caption_seconds.map(lambda seconds: 1 / seconds)
    habit_images = f"{habit_seconds.map(lambda seconds: 1 / seconds)} images/s"
    return [
        Finding("many images, beam 3", images, "images/s", Reach(30), habit_images),
        Finding(
            "many images, beside the habit",
            habit_seconds.over(caption_seconds),
            "times",
            None,
            habit_images,
            f"{images} images/s",
        ),
        Finding(
            "the search beside the encoder",
            search_seconds.over(encode_seconds).map(lambda share: 100 * share),
            "% of its time",
            Reach(10, is_limit=True),
            "",
            f"{search_seconds.map(lambda seconds: 1000 * seconds)} ms an image, the encoder "
            f"{encode_seconds.map(lambda seconds: 1000 * seconds)} ms",
        ),
    ]
