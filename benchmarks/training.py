"""How fast is an epoch of training?

Both sides learn from the same images and captions, and have the same sizes: 256 for the embedding,
the LSTM and what merges it with the image, and as many words, once those that the program would
learn and once all, as the tutorial does. The program's output layer is the embedding again, turned
round: the same multiplications, and fewer weights to keep.
"""

from dataclasses import replace
from itertools import islice

from benchmarks import tutorial
from benchmarks.findings import Finding, Target
from benchmarks.plan import Plan
from benchmarks.timing import seconds_a_piece
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
_IMAGES = 2000  # a round of the program's, a third of Flickr8k's
_WARM_UP_IMAGES = 128


def run(plan: Plan) -> list[Finding]:
    found = []
    for min_word_count in (TrainingSettings.min_word_count, 1):
        world = (
            real_world(plan.root, min_word_count)
            if plan.root
            else made_world(min_word_count=min_word_count)
        )
        found += measure(world, _TUTORIAL_IMAGES, _IMAGES, plan.rounds)
    return found


def measure(world: World, tutorial_images: int, our_images: int, rounds: int) -> list[Finding]:
    """The steps of an epoch for some of its images, on both sides."""
    images, epochs = len(world.captions), SETTINGS.epochs
    our_images = min(our_images, images)
    learn_by_tutorial = _tutorial_learner(world, tutorial_images)
    learn = _learner(world, our_images)
    theirs, product = seconds_a_piece(learn_by_tutorial, learn, rounds=rounds)
    their_epoch = theirs.map(lambda seconds: seconds * images / 60)
    our_epoch = product.map(lambda seconds: seconds * images / 60)
    of_what = f"of the merge model, {images:,} images, {len(world.vocabulary):,} ids"
    return [
        Finding(
            f"an epoch {of_what}",
            their_epoch.over(our_epoch),
            "times",
            Target(60),
            f"{their_epoch} minutes, scaled from {tutorial_images:,} images a round",
            f"{our_epoch.map(lambda minutes: 60 * minutes)} s, scaled from {our_images:,} images "
            "a round",
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


def _learner(world: World, images: int):
    width = len(next(iter(world.features.values())))
    maps = {name: features[None] for name, features in world.features.items()}
    batches, warm_up = (
        make_batches([(dict(islice(world.captions.items(), count)), maps)], SETTINGS)
        for count in (images, _WARM_UP_IMAGES)
    )
    loss = SmoothedCrossentropy(SETTINGS.label_smoothing)
    model = build_caption_model(len(world.vocabulary), width, SETTINGS, fastest_precision())
    compile_learner(model, SETTINGS, len(batches), loss)

    def learn(batches: CaptionBatches = batches) -> int:
        model.fit(batches, shuffle=False, verbose=0, callbacks=[memory_keeper()])
        return images

    learn(warm_up)
    return learn


def _tutorial_learner(world: World, images: int):
    max_length = max(len(ids) for of_image in world.captions.values() for ids in of_image)
    width = len(next(iter(world.features.values())))
    model = tutorial.build_model(len(world.vocabulary), max_length, feature_width=width)
    batches = tutorial.batches(world.captions, world.features, max_length, len(world.vocabulary))

    def learn() -> int:
        model.fit(batches, steps_per_epoch=images, verbose=0)
        return images

    learn()  # the first time, the graph is made
    return learn
