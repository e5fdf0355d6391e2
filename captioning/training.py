"""The journey from captions and features to a trained model.

Each epoch ends with captions for the development images: the epoch with the best CIDEr is kept, and
training stops when it has not risen for a while.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from captioning.batches import CaptionBatches
from captioning.dataset import Captions, select
from captioning.evaluation import evaluate
from captioning.export import as_decoder, export_decoder
from captioning.losses import SmoothedCrossentropy
from captioning.model import build_caption_model
from captioning.run import Run
from captioning.settings import Files, TrainingSettings
from captioning.text import Vocabulary


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained and chosen on.

    `train` and `development`: image name -> cleaned captions; `references`: image name -> captions
    of the development images as written; `features`: image name -> float32 (feature_width,).
    """

    train: Mapping[str, Sequence[str]]
    development: Mapping[str, Sequence[str]]
    references: Mapping[str, Sequence[str]]
    features: Mapping[str, np.ndarray]

    @classmethod
    def of_splits(
        cls,
        descriptions: Captions,
        captions: Captions,
        splits: Mapping[str, Sequence[str]],
        features: Mapping[str, np.ndarray],
    ) -> "TrainingData":
        """From cleaned `descriptions` and `captions` as written, of all images. An image that the
        descriptions leave out, since it or its captions cannot be used, is left out here."""
        development = select(descriptions, splits["development"])
        return cls(
            train=select(descriptions, splits["train"]),
            development=development,
            references=select(captions, list(development)),
            features=features,
        )

    @property
    def fingerprint(self) -> str:
        """Equal for equal captions of equally named images."""
        captions = json.dumps([self.train, self.development], sort_keys=True)
        return hashlib.sha256(captions.encode()).hexdigest()[:16]

    @property
    def longest_caption(self) -> int:
        """In words, over the training captions: no model says more."""
        return max(len(caption.split()) for one in self.train.values() for caption in one)


def train(
    data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings, folder: Path
) -> tuple[keras.Model, list[dict[str, float]]]:
    """Trains the caption model; returns it as of its best epoch, and a dict of numbers an epoch.

    `folder` receives the files of a `Run`. A call that finds an unfinished run there goes on with
    it, and returns a finished one as it is; ValueError if that run had other settings, captions or
    words, or if an image has no features.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identity = {
        "settings": asdict(settings),
        "vocabulary": vocabulary.fingerprint,
        "captions": data.fingerprint,
    }
    run = Run(folder, identity, settings.epochs, settings.patience)
    if not run.is_over:
        _fit(run, data, vocabulary, settings)
    return run.finish(), run.history


def train_and_export(
    descriptions: Captions,
    captions: Captions,
    splits: Mapping[str, Sequence[str]],
    features: Mapping[str, np.ndarray],
    settings: TrainingSettings,
    files: Files,
) -> list[dict[str, float]]:
    """From cleaned `descriptions` and `captions` as written to all that captioning needs: trains in
    `files.models`, then writes the vocabulary and the exported decoder. Returns the history."""
    data = TrainingData.of_splits(descriptions, captions, splits, features)
    vocabulary = Vocabulary.from_captions(
        (caption for of_image in data.train.values() for caption in of_image),
        settings.min_word_count,
    )
    model, history = train(data, vocabulary, settings, files.models)
    vocabulary.save(files.vocabulary)
    export_decoder(model, vocabulary, data.longest_caption, files.models)
    return history


def _fit(run: Run, data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings) -> None:
    """Runs the epochs that are left."""
    epochs_done = len(run.history)
    train_batches, development_batches = (
        CaptionBatches(
            {name: [vocabulary.encode(caption) for caption in of] for name, of in captions.items()},
            data.features,
            settings.batch_size,
            seed=settings.seed,
            epoch=epochs_done,
        )
        for captions in (data.train, data.development)
    )
    if epochs_done:
        model = run.last_model()
    else:
        keras.utils.set_random_seed(settings.seed)
        feature_width = next(iter(data.features.values())).shape[-1]
        model = build_caption_model(len(vocabulary), feature_width, settings)
        _compile(model, settings, steps_an_epoch=len(train_batches))
    model.fit(
        train_batches,
        validation_data=development_batches,
        initial_epoch=epochs_done,
        epochs=settings.epochs,
        callbacks=[_Epochs(run, data, vocabulary, settings.seed)],
        shuffle=False,  # the batches come shuffled, in an order that a resumed run repeats
        verbose=2,
    )


def _compile(model: keras.Model, settings: TrainingSettings, steps_an_epoch: int) -> None:
    warmup_steps = int(steps_an_epoch * settings.warmup_epochs)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=steps_an_epoch * settings.epochs - warmup_steps,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup_steps,
    )
    model.compile(
        keras.optimizers.AdamW(
            schedule, weight_decay=settings.weight_decay, clipnorm=settings.clip_norm
        ),
        SmoothedCrossentropy(settings.label_smoothing),
        jit_compile=False,  # batches differ in length, and XLA compiles every length anew
    )


class _Epochs(keras.callbacks.Callback):
    """Begins each epoch with its own random numbers; ends it by scoring the model on the
    development images and keeping it."""

    def __init__(self, run: Run, data: TrainingData, vocabulary: Vocabulary, seed: int):
        super().__init__()
        self._run = run
        self._seed = seed
        self._data = data
        self._vocabulary = vocabulary

    def on_train_begin(self, logs=None):
        # Shares the model's weights, so it is built once and always up to date.
        self._decoder = as_decoder(self.model, self._vocabulary, self._data.longest_caption)

    def on_epoch_begin(self, epoch, logs=None):
        # Keras saves no random state: without this, a resumed run would drop what epoch 1 dropped.
        random = np.random.default_rng([self._seed, epoch])
        for layer in self.model.layers:
            if isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
                layer.seed_generator.state.assign(random.integers(2**32, size=2, dtype="uint32"))

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self._development_scores())
        self._run.add_epoch(self.model, logs)
        self.model.stop_training = self._run.is_over

    def _development_scores(self) -> dict[str, float]:
        features, references = self._data.features, self._data.references
        _, scores = evaluate(self._decoder, features, references, meteor=False)
        return {f"development {name}": scores[name] for name in ("CIDEr", "BLEU-4")}
