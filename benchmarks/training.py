"""How fast is an epoch of training?

Both sides learn from the same images and captions, and have the same sizes: 256 for the embedding,
the LSTM and what merges it with the image, and as many words, once those that the program would
learn and once all, as the tutorial does. The program's output layer is the embedding again, turned
round: the same multiplications, and fewer weights to keep. Each side has a process of its own, as
whoever uses it: what the program tells the C library about memory would speed up the other, too.
"""

from dataclasses import replace
from itertools import islice

from benchmarks import tutorial
from benchmarks.findings import Finding, Target
from benchmarks.fresh import worker_process
from benchmarks.plan import Plan
from benchmarks.timing import Work, seconds_a_piece
from benchmarks.tutorial_work import build_training
from benchmarks.world import World, made_world, real_world
from captioning.inference.processor import training_precision
from captioning.models.caption_model import build_caption_model
from captioning.settings import TrainingSettings
from captioning.training.batches import CaptionBatches
from captioning.training.cross_entropy import compile_learner, make_batches, memory_keeper
from captioning.training.losses import SmoothedCrossentropy

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
_WARM_UP_IMAGES = 4 * SETTINGS.batch_size  # in which the graph is made


def run(plan: Plan) -> list[Finding]:
    found = []
    for min_word_count in (TrainingSettings.min_word_count, 1):
        world = (
            real_world(plan.root, min_word_count)
            if plan.root
            else made_world(min_word_count=min_word_count)
        )
        with (
            worker_process(build_training, world, _TUTORIAL_IMAGES) as theirs,
            worker_process(build_epoch, world) as ours,
        ):
            found += measure(world, theirs, _TUTORIAL_IMAGES, ours, plan.rounds)
    return found


def build_epoch(world: World) -> Work:
    """An epoch of the program's training."""
    width = len(next(iter(world.features.values())))
    maps = {name: features[None] for name, features in world.features.items()}
    batches, warm_up = (
        make_batches([(dict(islice(world.captions.items(), count)), maps)], SETTINGS)
        for count in (len(world.captions), _WARM_UP_IMAGES)
    )
    loss = SmoothedCrossentropy(SETTINGS.label_smoothing)
    model = build_caption_model(len(world.vocabulary), width, SETTINGS, training_precision())
    compile_learner(model, SETTINGS, len(batches), loss)

    def learn(batches: CaptionBatches = batches) -> int:
        model.fit(batches, shuffle=False, verbose=0, callbacks=[memory_keeper()])
        return len(world.captions)

    learn(warm_up)
    return learn


def measure(
    world: World, theirs: Work, tutorial_images: int, ours: Work, rounds: int
) -> list[Finding]:
    """`theirs` trains on `tutorial_images` of the world, which is scaled to all, `ours` on all."""
    images, epochs = len(world.captions), SETTINGS.epochs
    their_epoch, our_epoch = (
        seconds.map(lambda an_image: an_image * images / 60)
        for seconds in seconds_a_piece(theirs, ours, rounds=rounds)
    )
    of_what = f"of the merge model, {images:,} images, {len(world.vocabulary):,} ids"
    return [
        Finding(
            f"an epoch {of_what}",
            their_epoch.over(our_epoch),
            "times",
            Target(60),
            f"{their_epoch} minutes, scaled from {tutorial_images:,} images a round",
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
