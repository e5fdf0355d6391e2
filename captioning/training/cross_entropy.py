"""The first stage of training: the model predicts each next word of the captions.

Whatever it predicts, it reads the right word and predicts the one after (teacher forcing). Targets
are the words of the captions or, in distillation, the probabilities of a teacher. Fine-tuning runs
the same epochs with a part of the encoder before the caption model.
"""

from collections.abc import Callable, Iterator, Sequence
from math import isfinite

import keras
import numpy as np

from captioning.data.vocabulary import Vocabulary
from captioning.inference.openvino_runtime import training_precision
from captioning.models.caption_model import build_caption_model
from captioning.settings import TrainingSettings
from captioning.training.batches import CaptionBatches, Variant, one_caption_per_row
from captioning.training.checkpoints import Run
from captioning.training.distillation import DistillationBatches
from captioning.training.losses import SmoothedCrossentropy
from captioning.training.training_data import TrainingData
from captioning.training.validation import Validator

STAGE = "cross-entropy"

# Of batches of single captions, sorted by length: so many leave 2 % of padding, and so many
# captions have one length that no two epochs hold the same batches.
_BATCHES_PER_GROUP_OF_ROWS = 128

Score = Callable[[keras.Model], dict[str, float]]


def run_stage(
    run: Run,
    data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    teacher: keras.Model | None = None,
) -> None:
    """Runs the epochs of this stage that are left. With a `teacher` (see `build_teacher`), its
    probabilities are the targets, for the development captions too."""
    validator = Validator(data, vocabulary, settings)

    def build() -> keras.Model:
        precision = training_precision()
        return build_caption_model(len(vocabulary), data.feature_width, settings, precision)

    run_epochs(run, STAGE, build, validator.score, data, vocabulary, settings, teacher)


def run_epochs(
    run: Run,
    stage: str,
    build: Callable[[], keras.Model],
    score: Score,
    data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    teacher: keras.Model | None,
) -> None:
    """Runs the epochs of `stage` that are left, with the model of its last epoch or, before the
    first, with the model that `build` makes; it has the inputs and the output of a caption model.
    After each epoch, `score` scores it on the development images."""
    epochs_done = run.epochs_done(stage)
    train_batches = make_batches(data.encode(vocabulary), settings, epochs_done)
    development_batches = make_batches(data.encode_development(vocabulary), settings)
    loss = SmoothedCrossentropy(settings.label_smoothing)
    if teacher:
        train_batches = DistillationBatches(train_batches, teacher)
        development_batches = DistillationBatches(development_batches, teacher)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum")
    if epochs_done:
        model = run.last_model()
    else:
        keras.utils.set_random_seed(settings.seed)
        model = build()
        compile_model(model, settings, len(train_batches), loss)
    model.fit(
        train_batches,
        validation_data=development_batches,
        initial_epoch=epochs_done,
        epochs=settings.epochs,
        callbacks=[_Epochs(run, stage, score, settings)],
        shuffle=False,  # the batches come shuffled, in an order that a resumed run repeats
        verbose=2,
    )


def make_batches(
    variants: Sequence[Variant], settings: TrainingSettings, epoch: int = 0
) -> CaptionBatches:
    """Batches of `settings.batch_size` images with all their captions; for the merge decoder, to
    which an image costs next to nothing, of as many captions, each in a row of its own."""
    if not settings.uses_pooled_features:
        return CaptionBatches(variants, settings.batch_size, settings.seed, epoch)
    rows = [one_caption_per_row(variant) for variant in variants]
    batch_size = settings.batch_size * len(rows[0][0]) // len(variants[0][0])
    return CaptionBatches(rows, batch_size, settings.seed, epoch, _BATCHES_PER_GROUP_OF_ROWS)


def compile_model(
    model: keras.Model, settings: TrainingSettings, steps_per_epoch: int, loss: keras.Loss
) -> None:
    """Gives the model its loss and its optimizer: AdamW, whose learning rate rises linearly during
    the warm-up and falls to 0 along a cosine."""
    warmup_steps = int(steps_per_epoch * settings.warmup_epochs)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=steps_per_epoch * settings.epochs - warmup_steps,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup_steps,
    )
    optimizer = keras.optimizers.AdamW(
        learning_rate, weight_decay=settings.weight_decay, clipnorm=settings.clip_norm
    )
    # Batches differ in length, and XLA would compile each length.
    model.compile(optimizer, loss, jit_compile=False)


def require_finite_loss(loss: float, learning_rate: float) -> None:
    """Raises ValueError if training has diverged."""
    if not isfinite(loss):
        raise ValueError(
            f"Expected a finite loss, got {loss}. Train with a learning rate below {learning_rate}."
        )


class _Epochs(keras.callbacks.Callback):
    """Begins each epoch with random numbers of its own; ends it by scoring the model on the
    development images and saving it."""

    def __init__(self, run: Run, stage: str, score: Score, settings: TrainingSettings):
        super().__init__()
        self._run = run
        self._stage = stage
        self._score = score
        self._settings = settings

    def on_epoch_begin(self, epoch, logs=None):
        # Keras saves no random state: without this, a resumed run would drop what epoch 1 dropped.
        random = np.random.default_rng([self._settings.seed, epoch])
        for layer in _dropouts(self.model):
            layer.seed_generator.state.assign(random.integers(2**32, size=2, dtype="uint32"))

    def on_epoch_end(self, epoch, logs=None):
        require_finite_loss(logs["loss"], self._settings.learning_rate)
        logs.update(self._score(self.model))
        self._run.add_epoch(self.model, logs)
        self.model.stop_training = self._run.stage != self._stage


def _dropouts(model: keras.Model) -> Iterator[keras.layers.Dropout]:
    """The active dropout layers of a model and of the models that it is made of."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _dropouts(layer)
        elif isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
            yield layer
