"""The journey from captions and features to a trained model.

First the model learns word by word what people wrote, then from what its own captions are worth.
Each epoch ends with captions for the development images: the epoch with the best CIDEr is kept, and
a stage stops when it has not risen for a while.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np

from captioning import self_critical, teacher_forcing
from captioning.dataset import Captions
from captioning.export import export_decoder
from captioning.model import build_caption_model
from captioning.run import Run
from captioning.settings import Files, TrainingSettings
from captioning.text import Vocabulary
from captioning.training_data import TrainingData


def train(
    data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings, folder: Path
) -> tuple[keras.Model, list[dict]]:
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
        "views": len(data.views(vocabulary)),
    }
    stages = {
        teacher_forcing.STAGE: settings.epochs,
        self_critical.STAGE: settings.self_critical_epochs,
    }
    run = Run(folder, identity, stages, settings.patience)
    for stage in (teacher_forcing, self_critical):
        if run.stage == stage.STAGE:
            stage.learn(run, data, vocabulary, settings)
    if not run.is_finished:
        # Whatever it was trained in, the model is kept in float32.
        model = build_caption_model(len(vocabulary), data.feature_width, settings)
        model.set_weights(run.best_model().get_weights())
        run.finish(model)
    return run.model(), run.history


def train_and_export(
    descriptions: Captions,
    captions: Captions,
    splits: Mapping[str, Sequence[str]],
    features: Mapping[str, np.ndarray],
    mirrored_features: Mapping[str, np.ndarray],
    settings: TrainingSettings,
    files: Files,
) -> list[dict]:
    """From cleaned `descriptions` and `captions` as written to all that captioning needs: trains in
    `files.models`, then writes the vocabulary and the exported decoder. Returns the history."""
    data = TrainingData.of_splits(descriptions, captions, splits, features, mirrored_features)
    vocabulary = Vocabulary.from_captions(
        (caption for of_image in data.train.values() for caption in of_image),
        settings.min_word_count,
    )
    model, history = train(data, vocabulary, settings, files.models)
    vocabulary.save(files.vocabulary)
    export_decoder(model, vocabulary, data.longest_caption, files.models)
    return history
