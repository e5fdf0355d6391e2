"""The first stage of training: the model learns to predict the next word of the captions.

At every position it reads the words of the reference caption, not those that it has predicted
(teacher forcing). The targets are the words of the captions; in distillation, the probabilities of
a teacher replace them or are mixed with them. Fine-tuning runs the same epochs with a part of the
encoder before the caption model.
"""

from collections.abc import Callable, Iterator, Sequence
from math import isfinite, nan

import keras
import numpy as np
from keras import ops

from captioning.data.vocabulary import Vocabulary
from captioning.errors import UserError
from captioning.models.backend import uses_xla
from captioning.models.caption_model import build_caption_model
from captioning.settings import TrainingSettings
from captioning.training.batches import CaptionBatches, Variant, separate_captions
from captioning.training.checkpoints import Run
from captioning.training.device_batches import for_devices
from captioning.training.devices import model_scope, training_precision
from captioning.training.distillation import DistillationBatches
from captioning.training.training_data import TrainingData
from captioning.training.validation import Validator

STAGE = "cross-entropy"

# For batches of single captions. Sorted by length in groups of this size, they have 2 % of padding;
# so many captions have the same length that every epoch has other batches.
_BATCHES_PER_GROUP_OF_ROWS = 128

Score = Callable[[keras.Model], dict[str, float]]


@keras.saving.register_keras_serializable("captioning")
class SmoothedCrossentropy(keras.losses.Loss):
    """Sparse cross-entropy from logits, with label smoothing (Szegedy et al., 2016).

    `y_true` are classes (images, positions) int, `y_pred` logits (images, positions, classes). The
    share `label_smoothing` of each target is spread evenly over all classes. The loss is the sum
    over the positions, each times its sample weight: see `CaptionBatches`.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "loss"):
        super().__init__(name=name, reduction="sum")
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        classes = y_pred.shape[-1]
        target = ops.one_hot(y_true, classes, dtype=y_pred.dtype)
        smoothed = (1 - self.label_smoothing) * target + self.label_smoothing / classes
        return ops.logsumexp(y_pred, axis=-1) - ops.sum(smoothed * y_pred, axis=-1)

    def get_config(self):
        return {"label_smoothing": self.label_smoothing, "name": self.name}


def run_stage(
    run: Run,
    data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    teacher: keras.Model | None = None,
) -> None:
    """Runs the remaining epochs of this stage. With a `teacher` (see `build_teacher`), the training
    and the development captions have the targets of `DistillationBatches`."""
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
    teacher_data: TrainingData | None = None,
) -> None:
    """Runs the remaining epochs of `stage`. The model is that of its last epoch; before the first
    epoch, `build` builds it. It has the inputs and the output of a caption model. After each epoch,
    `score` scores it on the development images. The `teacher` reads the features of `teacher_data`,
    by default those of `data`. Raises UserError if training diverges."""
    epochs_done = run.epochs_done(stage)
    all_batches = _make_all_batches(data, vocabulary, settings, epochs_done)
    loss = SmoothedCrossentropy(settings.label_smoothing)
    if teacher:
        teacher_batches = all_batches
        if teacher_data:
            teacher_batches = _make_all_batches(teacher_data, vocabulary, settings)
        all_batches = [
            DistillationBatches(
                batches, teacher, run.folder, read_by_teacher.variants, settings.soft_target_share
            )
            for batches, read_by_teacher in zip(all_batches, teacher_batches, strict=True)
        ]
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum")
    train_batches, development_batches = all_batches
    with model_scope():
        if epochs_done:
            model = run.load_last_model()
        else:
            keras.utils.set_random_seed(settings.seed)
            model = build()
            compile_model(model, settings, len(train_batches), loss)
    model.fit(
        for_devices(train_batches),
        validation_data=for_devices(development_batches),
        initial_epoch=epochs_done,
        epochs=settings.epochs,
        callbacks=[_Epochs(run, stage, score, settings)],
        shuffle=False,  # the batches shuffle themselves, in an order that a resumed run repeats
        verbose=2,
    )


def _make_all_batches(
    data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings, epoch: int = 0
) -> tuple[CaptionBatches, CaptionBatches]:
    """Makes batches of the training images and of the development images."""
    train = make_batches(data.encode(vocabulary), settings, epoch)
    return train, make_batches(data.encode_development(vocabulary), settings)


def make_batches(
    variants: Sequence[Variant], settings: TrainingSettings, epoch: int = 0
) -> CaptionBatches:
    """Makes batches of `settings.batch_size` images with all their captions. For the merge decoder,
    which uses pooled features, a batch has as many captions, each in a row of its own."""
    if not settings.uses_pooled_features:
        return CaptionBatches(variants, settings.batch_size, settings.seed, epoch)
    rows = [separate_captions(variant) for variant in variants]
    batch_size = settings.batch_size * len(rows[0].captions) // len(variants[0].captions)
    return CaptionBatches(rows, batch_size, settings.seed, epoch, _BATCHES_PER_GROUP_OF_ROWS)


def compile_model(
    model: keras.Model, settings: TrainingSettings, steps_per_epoch: int, loss: keras.Loss
) -> None:
    """Compiles the model with its loss and AdamW (Loshchilov and Hutter, 2019). The learning rate
    rises linearly during the warm-up, and then falls to 0 along a cosine."""
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
    model.compile(optimizer, loss, jit_compile=uses_xla())


def require_finite_loss(loss: float, learning_rate: float) -> None:
    """Raises UserError if training has diverged."""
    if not isfinite(loss):
        raise UserError(
            f"Expected a finite loss, got {loss}: the training diverged. Begin a new run with a "
            f"learning rate below {learning_rate}."
        )


def require_finite_weights(model: keras.Model, learning_rate: float) -> None:
    """Raises UserError if training has diverged in its last batch, whose loss was computed with the
    weights before it."""
    for weights in model.get_weights():
        if not np.isfinite(weights).all():
            require_finite_loss(nan, learning_rate)


class _Epochs(keras.callbacks.Callback):
    """Seeds the dropout of each epoch. After the epoch, scores the model on the development images,
    and saves it."""

    def __init__(self, run: Run, stage: str, score: Score, settings: TrainingSettings):
        super().__init__()
        self._run = run
        self._stage = stage
        self._score = score
        self._settings = settings

    def on_epoch_begin(self, epoch, logs=None):
        # Keras saves no random state, so a resumed run would repeat the dropout of the first epoch.
        random = np.random.default_rng([self._settings.seed, epoch])
        for layer in _dropouts(self.model):
            layer.seed_generator.state.assign(random.integers(2**32, size=2, dtype="uint32"))

    def on_train_batch_end(self, batch, logs=None):
        require_finite_loss(logs["loss"], self._settings.learning_rate)

    def on_epoch_end(self, epoch, logs=None):
        require_finite_weights(self.model, self._settings.learning_rate)
        logs.update(self._score(self.model))
        self._run.add_epoch(self.model, logs)
        self.model.stop_training = self._run.stage != self._stage


def _dropouts(model: keras.Model) -> Iterator[keras.layers.Dropout]:
    """The active dropout layers of a model and of the models in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _dropouts(layer)
        elif isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
            yield layer
