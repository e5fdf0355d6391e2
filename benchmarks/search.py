"""How fast is a caption searched for, once the image is encoded?

The same model on both sides: one of the program's with the merge decoder, exported as it is for
captioning, and the tutorial's with the same weights. They are untrained and never end a caption, so
both stop after eleven words, where captions of Flickr8k end on average.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from benchmarks import tutorial
from benchmarks.findings import Finding, Target
from benchmarks.plan import Plan
from benchmarks.timing import seconds_a_piece
from benchmarks.training import SETTINGS
from benchmarks.world import made_world, real_world
from captioning.data.vocabulary import Vocabulary
from captioning.export.keras_to_openvino import export_decoder
from captioning.inference.networks import Decoder
from captioning.models.caption_model import build_caption_model
from captioning.settings import SearchSettings

_IMAGES = 200
_TUTORIAL_IMAGES = 3  # a round


def run(plan: Plan) -> list[Finding]:
    world = real_world(plan.root) if plan.root else made_world(_IMAGES)
    keras.utils.set_random_seed(0)
    model = build_caption_model(len(world.vocabulary), tutorial.FEATURE_WIDTH, SETTINGS)
    features = dict(list(world.features.items())[:_IMAGES])
    return measure(model, world.vocabulary, features, _TUTORIAL_IMAGES, plan.rounds)


def measure(
    caption_model: keras.Model,
    vocabulary: Vocabulary,
    features: Mapping[str, np.ndarray],
    tutorial_images: int,
    rounds: int,
) -> list[Finding]:
    """Greedy search and a beam of three, of all `features` at once, beside the tutorial's loop."""
    longest = tutorial.WORDS_A_CAPTION
    by_tutorial = tutorial.with_weights_of(caption_model, tutorial.MAX_LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        export_decoder(caption_model, vocabulary, longest, Path(folder))
        decoder = Decoder.load(Path(folder), vocabulary)
    maps = np.stack(list(features.values()))[:, None]
    said: dict[str, list[str]] = {}

    def loop() -> int:
        said["tutorial"] = [
            vocabulary.decode(tutorial.say(by_tutorial, of_image, tutorial.MAX_LENGTH, longest))
            for of_image in maps[:tutorial_images, 0]
        ]
        return tutorial_images

    def search(beam_width: int) -> int:
        found = decoder.caption(maps, SearchSettings(beam_width))
        said[f"beam {beam_width}"] = [caption.text for caption in found]
        return len(maps)

    for work in (loop, lambda: search(1), lambda: search(3)):
        work()
    theirs, greedy, beam = seconds_a_piece(
        loop, lambda: search(1), lambda: search(3), rounds=rounds
    )
    equal = sum(map(str.__eq__, said["tutorial"], said["beam 1"]))
    findings = []
    for width, seconds in ((1, greedy), (3, beam)):
        agreement = f", {equal} of {tutorial_images} the tutorial's own" if width == 1 else ""
        findings.append(
            Finding(
                f"the search, beam {width}, {len(maps)} images at once",
                theirs.over(seconds),
                "times",
                Target(20),
                f"{theirs.map(lambda one: 1 / one)} captions/s, greedy",
                f"{seconds.map(lambda one: 1 / one)} captions/s{agreement}",
            )
        )
    return findings
