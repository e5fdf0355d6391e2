"""A model and captions in, the same model after some epochs out, in which words are guessed.

The words are those that people wrote, or what a teacher thinks in their place. Which layers learn
is the business of the stages: `captioning.training.teacher_forcing` and `captioning.training.fine_tuning`.
"""

from collections.abc import Callable, Iterator

import keras
import numpy as np

from captioning.data.vocabulary import Vocabulary
from captioning.settings import TrainingSettings
from captioning.training.batches import AugmentedData, CaptionBatches, one_caption_a_row
from captioning.training.checkpoints import Run
from captioning.training.distillation import DistillationBatches
from captioning.training.losses import SmoothedCrossentropy
from captioning.training.training_data import TrainingData

# Of batches of single captions, sorted by length. So many leave 2 % of padding, and as so many
# captions are of one length, no two epochs hold the same batches.
_BATCHES_A_GROUP_OF_ROWS = 128


def run_epochs(
    run: Run,
    stage: str,
    begin: Callable[[], keras.Model],
    score: Callable[[keras.Model], dict[str, float]],
    data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    teacher: keras.Model | None,
) -> None:
    """Runs the epochs that are left of `stage`, one in which words are guessed, with a model that
    has the inputs and the output of a caption model: the one that `begin` makes, if there is no
    last one. `score` says what it is worth after an epoch."""
    epochs_done = run.epochs_done(stage)
    train_batches, development_batches = (
        _taught(make_batches(views, settings, epochs_done), teacher)
        for views in (
            data.encoded_views(vocabulary),
            [(vocabulary.encode_captions(data.development), data.features)],
        )
    )
    if epochs_done:
        model = run.last_model()
    else:
        keras.utils.set_random_seed(settings.seed)
        model = begin()
        compile_learner(model, settings, len(train_batches), _loss(settings, teacher))
    model.fit(
        train_batches,
        validation_data=development_batches,
        initial_epoch=epochs_done,
        epochs=settings.epochs,
        callbacks=[_Epochs(run, stage, model, score, settings.seed)],
        shuffle=False,  # the batches come shuffled, in an order that a resumed run repeats
        verbose=2,
    )


def make_batches(
    views: AugmentedData, settings: TrainingSettings, epoch: int = 0
) -> CaptionBatches:
    """Of images with all their captions, or for the merge decoder of as many captions."""
    if not settings.uses_pooled_features:
        return CaptionBatches(views, settings.batch_size, settings.seed, epoch)
    rows = [one_caption_a_row(view) for view in views]
    batch_size = settings.batch_size * len(rows[0][0]) // len(views[0][0])
    return CaptionBatches(rows, batch_size, settings.seed, epoch, _BATCHES_A_GROUP_OF_ROWS)


def compile_learner(
    model: keras.Model, settings: TrainingSettings, steps_an_epoch: int, loss: keras.Loss
) -> None:
    """Gives a model all that `fit` wants for words to be guessed."""
    model.compile(
        keras.optimizers.AdamW(
            _schedule(settings, steps_an_epoch),
            weight_decay=settings.weight_decay,
            clipnorm=settings.clip_norm,
        ),
        loss,
        jit_compile=False,  # batches differ in length, and XLA compiles every length anew
    )


def _taught(batches: CaptionBatches, teacher: keras.Model | None) -> keras.utils.PyDataset:
    return DistillationBatches(batches, teacher) if teacher else batches


def _loss(settings: TrainingSettings, teacher: keras.Model | None) -> keras.Loss:
    if teacher:  # who says by itself how uncertain words are
        return keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum")
    return SmoothedCrossentropy(settings.label_smoothing)


def _schedule(
    settings: TrainingSettings, steps_an_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    warmup_steps = int(steps_an_epoch * settings.warmup_epochs)
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=steps_an_epoch * settings.epochs - warmup_steps,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup_steps,
    )


class _Epochs(keras.callbacks.Callback):
    """Begins each epoch with its own random numbers; ends it by scoring the network that
    learns on the development images and keeping it."""

    def __init__(
        self,
        run: Run,
        stage: str,
        network: keras.Model,
        score: Callable[[keras.Model], dict[str, float]],
        seed: int,
    ):
        super().__init__()
        self._run = run
        self._stage = stage
        self._network = network
        self._score = score
        self._seed = seed

    def on_epoch_begin(self, epoch, logs=None):
        # Keras saves no random state: without this, a resumed run would drop what epoch 1 dropped.
        random = np.random.default_rng([self._seed, epoch])
        for layer in _dropouts(self._network):
            layer.seed_generator.state.assign(random.integers(2**32, size=2, dtype="uint32"))

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self._score(self._network))
        self._run.add_epoch(self._network, logs)
        self.model.stop_training = self._run.stage != self._stage


def _dropouts(model: keras.Model) -> Iterator[keras.layers.Dropout]:
    """Those that drop anything, of the models that it is made of, too."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _dropouts(layer)
        elif isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
            yield layer
