"""How fast is an epoch of training?

Both sides learn from the same images and captions, and have the same sizes: 256 for the embedding,
the LSTM and what merges it with the image, and as many words, once those that the program would
learn and once all, as the tutorial does. The program's output layer is the embedding again, turned
round: the same multiplications, and fewer weights to keep. Each side has a process of its own, as
whoever uses it: what the program tells the C library about memory would speed up the other, too.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import keras
import tensorflow as tf

from benchmarks import tutorial
from benchmarks.findings import Finding, Target
from benchmarks.fresh import Elsewhere
from benchmarks.plan import Plan
from benchmarks.timing import Work, seconds_a_piece
from benchmarks.world import World, made_world, real_world
from captioning.batches import CaptionBatches
from captioning.epochs import compile_learner, make_batches, memory_keeper
from captioning.losses import SmoothedCrossentropy
from captioning.model import build_caption_model
from captioning.precision import fastest_precision
from captioning.settings import TrainingSettings

# Batches of 64 images are as good for this decoder as those of 32, and faster: docs/experiments.md.
SETTINGS = replace(
    TrainingSettings(),
    decoder="merge",
    units=tutorial.UNITS,
    embedding_units=tutorial.UNITS,
    batch_size=64,
    learning_rate=2e-3,
)

_TUTORIAL_IMAGES = 40  # a round: an epoch of it takes longer than anyone waits
_WARM_UP_IMAGES = 256


def run(plan: Plan) -> list[Finding]:
    found = []
    for min_word_count in (TrainingSettings.min_word_count, 1):
        with (
            Elsewhere(_tutorial_learner, plan.root, min_word_count) as by_tutorial,
            Elsewhere(_learner, plan.root, min_word_count) as ours,
        ):
            found += measure(_world(plan.root, min_word_count), by_tutorial, ours, plan.rounds)
    return found


def measure(world: World, by_tutorial: Work, ours: Work, rounds: int) -> list[Finding]:
    """Learning from some of the images, and from all of them."""
    images, epochs = len(world.captions), SETTINGS.epochs
    theirs, product = seconds_a_piece(by_tutorial, ours, rounds=rounds)
    their_epoch = theirs.map(lambda seconds: seconds * images / 60)
    our_epoch = product.map(lambda seconds: seconds * images / 60)
    of_what = f"of the merge model, {images:,} images, {len(world.vocabulary):,} ids"
    return [
        Finding(
            f"an epoch {of_what}",
            their_epoch.over(our_epoch),
            "times",
            Target(60),
            f"{their_epoch} minutes, scaled from a few images a round",
            f"{our_epoch.map(lambda minutes: 60 * minutes)} s",
        ),
        Finding(
            f"whole training {of_what}",
            our_epoch.map(lambda minutes: epochs * minutes),
            "minutes",
            None,
            f"{their_epoch.map(lambda minutes: epochs * minutes / 60)} hours, computed: as many "
            "epochs",
            f"computed: {epochs} epochs, the best of which is among the last; scoring left out",
        ),
    ]


def _world(root: Path | None, min_word_count: int) -> World:
    return real_world(root, min_word_count) if root else made_world(min_word_count=min_word_count)


def _learner(root: Path | None, min_word_count: int) -> Work:
    return learner(_world(root, min_word_count))


def _tutorial_learner(root: Path | None, min_word_count: int) -> Work:
    return tutorial_learner(_world(root, min_word_count), _TUTORIAL_IMAGES)


def learner(world: World) -> Work:
    """An epoch of the program's training, begun after some batches that make the graph."""
    width = len(next(iter(world.features.values())))
    maps = {name: features[None] for name, features in world.features.items()}
    batches, warm_up = (
        make_batches([(dict(islice(world.captions.items(), count)), maps)], SETTINGS)
        for count in (len(world.captions), _WARM_UP_IMAGES)
    )
    loss = SmoothedCrossentropy(SETTINGS.label_smoothing)
    model = build_caption_model(len(world.vocabulary), width, SETTINGS, fastest_precision())
    compile_learner(model, SETTINGS, len(batches), loss)

    def learn(batches: CaptionBatches = batches) -> int:
        model.fit(batches, shuffle=False, verbose=0, callbacks=[memory_keeper()])
        return len(world.captions)

    learn(warm_up)
    return learn


def tutorial_learner(world: World, images: int) -> Work:
    """So many steps of the tutorial's training, begun after as many that make the graph."""
    max_length = max(len(ids) for of_image in world.captions.values() for ids in of_image)
    width = len(next(iter(world.features.values())))
    model = tutorial.build_model(len(world.vocabulary), max_length, feature_width=width)
    batches = _without_tuner(
        tutorial.batches(world.captions, world.features, max_length, len(world.vocabulary))
    )

    def learn() -> int:
        model.fit(batches, steps_per_epoch=images, verbose=0)
        return images

    learn()
    return learn


def _without_tuner(batches: Iterator[tuple]) -> tf.data.Dataset:
    """What Keras makes of a generator, but for TensorFlow's tuner of input pipelines. It is waited
    for at the end of `fit`, up to a minute, which is little in an epoch of the tutorial's, and most
    of a round of a few images."""
    first = next(batches)
    signature = keras.tree.map_structure(
        lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), first
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_generator(lambda: batches, output_signature=signature)
    return dataset.prefetch(2).with_options(options)
