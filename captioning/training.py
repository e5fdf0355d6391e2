"""The journey from captions and features to a trained model.

Each epoch ends with captions for the development images: the epoch with the best CIDEr is kept, and
training stops when it has not risen for a while. All of this follows from the history alone, so a
run that was killed goes on from its last epoch as if nothing had happened.
"""

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
from captioning.files import write_atomically
from captioning.losses import SmoothedCrossentropy
from captioning.model import build_caption_model
from captioning.settings import Files, TrainingSettings
from captioning.text import Vocabulary

BEST_MODEL = "caption_model.keras"
RECORD = "training.json"
MONITOR = "development CIDEr"


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

    @property
    def longest_caption(self) -> int:
        """In words, over the training captions: no model says more."""
        return max(len(caption.split()) for one in self.train.values() for caption in one)


def train(
    data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings, folder: Path
) -> tuple[keras.Model, list[dict[str, float]]]:
    """Trains the caption model; returns it as of its best epoch, and a dict of numbers an epoch.

    `folder` receives `caption_model.keras` (the best epoch) and `training.json` (settings and
    history), and while training lasts `epoch-<n>.keras` (the last epoch, with the optimizer). A
    call that finds an unfinished run there goes on with it, and returns a finished one as it is;
    ValueError if that run had other settings, data or words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = _read_record(folder, _identity(data, vocabulary, settings))
    history = record["history"]
    batches = CaptionBatches(
        _encode(vocabulary, data.train),
        data.features,
        settings.batch_size,
        seed=settings.seed,
        epoch=len(history),
    )
    if history and not _is_over(history, settings):
        model = keras.models.load_model(_checkpoint(folder, len(history)))
    elif not history:
        model = _new_model(data, vocabulary, settings, steps=len(batches) * settings.epochs)
    if not _is_over(history, settings):
        model.fit(
            batches,
            validation_data=CaptionBatches(
                _encode(vocabulary, data.development), data.features, settings.batch_size
            ),
            initial_epoch=len(history),
            epochs=settings.epochs,
            callbacks=[_EpochEnd(data, vocabulary, settings, folder, record)],
            verbose=2,
        )
        model = keras.models.load_model(folder / BEST_MODEL, compile=False)
        _save(model, folder / BEST_MODEL)  # without the optimizer, which is two thirds of the file
    _checkpoint(folder, len(history)).unlink(missing_ok=True)
    return keras.models.load_model(folder / BEST_MODEL, compile=False), history


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
    data = TrainingData(
        train=select(descriptions, splits["train"]),
        development=select(descriptions, splits["development"]),
        references=select(captions, splits["development"]),
        features=features,
    )
    vocabulary = Vocabulary.from_captions(
        (caption for of_image in data.train.values() for caption in of_image),
        settings.min_word_count,
    )
    model, history = train(data, vocabulary, settings, files.models)
    vocabulary.save(files.vocabulary)
    export_decoder(model, vocabulary, data.longest_caption, files.models)
    return history


def best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """The epoch that is kept, counted from 0: the first with the highest development CIDEr."""
    return max(range(len(history)), key=lambda epoch: history[epoch][MONITOR])


class _EpochEnd(keras.callbacks.Callback):
    """Scores the model on the development images, then saves it: model first, history last."""

    def __init__(self, data, vocabulary, settings, folder, record):
        super().__init__()
        self._data = data
        self._vocabulary = vocabulary
        self._settings = settings
        self._folder = folder
        self._record = record

    def on_epoch_end(self, epoch, logs=None):
        scores = self._development_scores()
        logs.update(scores)
        history = self._record["history"]
        history.append({name: float(value) for name, value in logs.items()})
        _save(self.model, _checkpoint(self._folder, len(history)))
        if best_epoch(history) == epoch:
            _save(self.model, self._folder / BEST_MODEL)
        with write_atomically(self._folder / RECORD, "w") as file:
            json.dump(self._record, file, indent=1)
        _checkpoint(self._folder, len(history) - 1).unlink(missing_ok=True)
        self.model.stop_training = _is_over(history, self._settings)

    def _development_scores(self) -> dict[str, float]:
        decoder = as_decoder(self.model, self._vocabulary, self._data.longest_caption)
        _, scores = evaluate(decoder, self._data.features, self._data.references, meteor=False)
        return {f"development {name}": scores[name] for name in ("CIDEr", "BLEU-4")}


def _new_model(
    data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings, steps: int
) -> keras.Model:
    keras.utils.set_random_seed(settings.seed)
    feature_width = next(iter(data.features.values())).shape[-1]
    model = build_caption_model(len(vocabulary), feature_width, settings)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        steps,
        warmup_target=settings.learning_rate,
        warmup_steps=steps // settings.epochs // 2,
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay, clipnorm=5.0),
        SmoothedCrossentropy(settings.label_smoothing),
        jit_compile=False,  # batches differ in length, and XLA compiles every length anew
    )
    return model


def _encode(vocabulary: Vocabulary, captions: Mapping[str, Sequence[str]]) -> dict:
    return {name: [vocabulary.encode(caption) for caption in of] for name, of in captions.items()}


def _is_over(history: list, settings: TrainingSettings) -> bool:
    return bool(history) and (
        len(history) >= settings.epochs
        or len(history) - 1 - best_epoch(history) >= settings.patience
    )


def _checkpoint(folder: Path, epochs: int) -> Path:
    return folder / f"epoch-{epochs}.keras"


def _save(model: keras.Model, path: Path) -> None:
    neighbour = path.with_name(f"saving-{path.name}")
    model.save(neighbour)
    neighbour.replace(path)


def _identity(data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings) -> dict:
    """What makes two runs the same run."""
    return {
        "settings": asdict(settings),
        "vocabulary": vocabulary.fingerprint,
        "images": {"train": len(data.train), "development": len(data.development)},
    }


def _read_record(folder: Path, identity: dict) -> dict:
    path = folder / RECORD
    if not path.exists():
        return {**identity, "history": []}
    record = json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key, value in identity.items() if record.get(key) != value]
    if changed:
        raise ValueError(
            f"{path} belongs to a run with other {', '.join(changed)}. Move it and the models "
            "beside it away to begin a new run, or restore what was changed to go on."
        )
    return record
