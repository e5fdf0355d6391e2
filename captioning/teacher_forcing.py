"""The first stage of training: captions that people wrote in, guessed word by word.

Whatever the model would have said, it is told the right word and asked for the next one.
"""

import keras
import numpy as np

from captioning.batches import CaptionBatches, Views, one_caption_a_row
from captioning.development import DevelopmentScores
from captioning.distillation import TaughtBatches
from captioning.losses import SmoothedCrossentropy
from captioning.model import PARTS, build_caption_model
from captioning.precision import fastest_precision
from captioning.run import Run
from captioning.settings import TrainingSettings
from captioning.text import Vocabulary
from captioning.training_data import TrainingData

STAGE = "teacher forcing"


def learn(
    run: Run,
    data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    teacher: keras.Model | None = None,
) -> None:
    """Runs the epochs of this stage that are left. With a `teacher` (see `build_teacher`), its
    probabilities are the targets, of the development captions too."""
    epochs_done = run.epochs_done(STAGE)
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
        model = build_learner(
            len(vocabulary),
            data.feature_width,
            settings,
            len(train_batches),
            _loss(settings, teacher),
        )
    model.fit(
        train_batches,
        validation_data=development_batches,
        initial_epoch=epochs_done,
        epochs=settings.epochs,
        callbacks=[_Epochs(run, data, vocabulary, settings)],
        shuffle=False,  # the batches come shuffled, in an order that a resumed run repeats
        verbose=2,
    )


def make_batches(views: Views, settings: TrainingSettings, epoch: int = 0) -> CaptionBatches:
    """Of images with all their captions, or for the merge decoder of as many captions."""
    batch_size = settings.batch_size
    if settings.sees_averages:
        images = len(views[0][0])
        views = [one_caption_a_row(view) for view in views]
        batch_size = batch_size * len(views[0][0]) // images
    return CaptionBatches(views, batch_size, seed=settings.seed, epoch=epoch)


def build_learner(
    vocabulary_size: int,
    feature_width: int,
    settings: TrainingSettings,
    steps_an_epoch: int,
    loss: keras.Loss,
) -> keras.Model:
    """The caption model with all that `fit` wants in this stage, in the fastest precision."""
    model = build_caption_model(vocabulary_size, feature_width, settings, fastest_precision())
    model.compile(
        keras.optimizers.AdamW(
            _schedule(settings, steps_an_epoch),
            weight_decay=settings.weight_decay,
            clipnorm=settings.clip_norm,
        ),
        loss,
        jit_compile=False,  # batches differ in length, and XLA compiles every length anew
    )
    return model


def _taught(batches: CaptionBatches, teacher: keras.Model | None) -> keras.utils.PyDataset:
    return TaughtBatches(batches, teacher) if teacher else batches


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
    """Begins each epoch with its own random numbers; ends it by scoring the model on the
    development images and keeping it."""

    def __init__(
        self, run: Run, data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings
    ):
        super().__init__()
        self._run = run
        self._seed = settings.seed
        self._scores = DevelopmentScores(data, vocabulary, settings)

    def on_epoch_begin(self, epoch, logs=None):
        # Keras saves no random state: without this, a resumed run would drop what epoch 1 dropped.
        random = np.random.default_rng([self._seed, epoch])
        for part in PARTS:
            for layer in self.model.get_layer(part).layers:
                if isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
                    state = random.integers(2**32, size=2, dtype="uint32")
                    layer.seed_generator.state.assign(state)

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self._scores.of(self.model))
        self._run.add_epoch(self.model, logs)
        self.model.stop_training = self._run.stage != STAGE
