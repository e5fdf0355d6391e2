"""Trains a caption model from captions and features, and exports it.

In the first stage, the model learns to predict the next word of the captions. In the second stage,
it learns from the rewards of captions that it generates. After each epoch it captions the
development images. The epoch with the highest CIDEr is kept, and a stage stops when CIDEr has not
risen for some epochs.

By default, two models run through the first stage only. Their ensemble is the teacher of a third
model, the student, which runs through both stages and is the result. A model that learned together
with the encoder (see `captioning.training.fine_tuning`) runs through the second stage only.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

import keras

from captioning.data.dataset import Dataset
from captioning.data.vocabulary import Vocabulary, clean_captions
from captioning.errors import UserError
from captioning.export.keras_to_openvino import export_decoder, make_fingerprint
from captioning.inference.decoder import Decoder
from captioning.models.backend import EXPORT_BACKEND, can_export
from captioning.models.caption_model import build_ensemble, rebuild_caption_model
from captioning.paths import Paths
from captioning.settings import TrainingSettings
from captioning.training import cross_entropy, self_critical
from captioning.training.checkpoints import (
    ENSEMBLE_STAGE,
    MEMBER_KEY,
    STAGE_KEY,
    Run,
    load_model,
    load_trained,
    read_record,
    save_trained,
)
from captioning.training.continuation import continue_training, load_start, number_continuation
from captioning.training.devices import (
    is_first_process,
    training_precision,
    wait_for_all_processes,
)
from captioning.training.distillation import build_teacher
from captioning.training.training_data import (
    TrainingData,
    find_longest_caption,
    identify_run,
    training_settings,
)
from captioning.training.validation import validate

_MEMBER_FOLDER = "member-"

# Exports the decoder of the root folder that the argument names.
_EXPORT = """
import pathlib, sys
from captioning.paths import Paths
from captioning.training.train import export_trained
export_trained(Paths(pathlib.Path(sys.argv[1])))
"""


def train_and_export(
    data: TrainingData, settings: TrainingSettings, paths: Paths, start: Path | None = None
) -> list[dict]:
    """Trains a model in `paths.models`, and writes the vocabulary and the exported decoder. With
    the encoder, these are all that captioning needs. Returns the history. With several
    processes, only the first writes. `start`: see `train`."""
    captions_of_all = chain.from_iterable(data.train.values())
    vocabulary = Vocabulary.from_captions(captions_of_all, settings.min_word_count)
    model, history = train(data, vocabulary, settings, paths.models, start)
    if is_first_process():
        vocabulary.save(paths.vocabulary)
        if can_export():
            export_decoder(model, vocabulary, data.longest_caption, paths.models, data.encoder_id)
        else:
            _export_with_tensorflow(paths.root)
    return history


def train(
    data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    folder: Path,
    start: Path | None = None,
) -> tuple[keras.Model, list[dict]]:
    """Trains the caption model. Returns the model of the best epoch, and the history.

    Trains `settings.members` models one after the other. Returns their student or, without
    `settings.student`, their ensemble; a single model is its own ensemble. With `start`, the folder
    of a finished run, it trains no members: the caption model of that run continues, in the second
    stage only. Until the end, each model has a folder for its `Run` in `folder`; then `folder`
    holds the model and the record. An unfinished run in `folder` is resumed, and a finished run is
    not repeated.

    Raises UserError if that run had other settings, captions, words or augmentations, another
    encoder or another start; if the caption model in `start` does not fit; if an image has no
    features; if the decoder needs feature maps and gets pooled features; or if training diverges.
    Raises FileNotFoundError if `start` holds no model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identity = identify_run(data, vocabulary, settings) | {"start": None}
    if start:
        started, past_epochs = load_start(start, data, vocabulary, settings)
        identity["start"] = make_fingerprint(started)
    history = read_record(folder, identity)["history"]
    if history:  # only a finished run has a record here
        if is_first_process():
            _remove_members(folder)  # a run that was killed at its end may leave them
        return load_model(folder), history
    if settings.uses_pooled_features:
        data = data.pooled()
    elif not data.has_feature_maps:
        raise UserError(
            f'Expected feature maps for the decoder "{settings.decoder}", got pooled features. '
            'Extract feature maps, or train the decoder "merge".'
        )

    if start:
        stages = {self_critical.STAGE: settings.self_critical_epochs}
        run = Run(folder / f"{_MEMBER_FOLDER}1", identity, stages, settings.patience)
        model = continue_training(run, started, data, vocabulary, settings)
        history = past_epochs + number_continuation(run.history, past_epochs)
    else:
        model, history = _train_from_scratch(identity, data, vocabulary, settings, folder)
    wait_for_all_processes()  # the others may still read the files of the members
    if is_first_process():
        save_trained(model, identity | {"history": history}, folder)
        _remove_members(folder)
    return model, history


def export_trained(paths: Paths) -> None:
    """Exports the decoder again, from the model and the vocabulary of a finished run.

    The longest caption is that of the training captions. Without the data set, such as for a model
    from elsewhere, it is that of the current export. Raises UserError if model and vocabulary are
    not from the same run.
    """
    model, vocabulary, record = load_trained(paths)
    if paths.dataset.exists():
        dataset = Dataset.load(paths.dataset)
        max_length = find_longest_caption(clean_captions(dataset.captions_of("train")))
    else:
        max_length = Decoder.load(paths.models, vocabulary).longest_caption
    export_decoder(model, vocabulary, max_length, paths.models, record.get("encoder"))


def _export_with_tensorflow(root: Path) -> None:
    """Runs `export_trained` in a process whose Keras runs on TensorFlow."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": EXPORT_BACKEND,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", _EXPORT, str(root)]
    if subprocess.run(command, env=environment).returncode:
        raise UserError(
            "Expected the decoder to be exported, got an error. The trained model is kept. Run "
            f"`captioning export` with KERAS_BACKEND={EXPORT_BACKEND}."
        )


def _train_from_scratch(
    identity: Mapping,
    data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    folder: Path,
) -> tuple[keras.Model, list[dict]]:
    """Trains the members and, with `settings.student`, their student."""
    members, history = [], []
    for number in range(1, settings.members + 1):
        member_settings = _member_settings(settings, number)
        run = _run(folder / f"{_MEMBER_FOLDER}{number}", identity, member_settings)
        members.append(_train_model(run, data, vocabulary, member_settings))
        label = {MEMBER_KEY: number} if settings.members > 1 or settings.student else {}
        history += [epoch | label for epoch in run.history]
    model = build_ensemble(members)
    if settings.members > 1:
        history.append({STAGE_KEY: ENSEMBLE_STAGE, **validate(model, data, vocabulary)})

    if settings.student:
        student_settings = _student_settings(settings)
        run = _run(folder / f"{_MEMBER_FOLDER}student", identity, student_settings)
        teacher = build_teacher(members, settings, training_precision())
        model = _train_model(run, data, vocabulary, student_settings, teacher)
        history += run.history
    return model, history


def _member_settings(settings: TrainingSettings, number: int) -> TrainingSettings:
    """The settings of the member with this number, from 1. Teachers skip self-critical training,
    which raises the reward at the cost of the probabilities that the student learns."""
    epochs = 0 if settings.student else settings.self_critical_epochs
    return replace(settings, seed=_seed(settings, number), self_critical_epochs=epochs)


def _student_settings(settings: TrainingSettings) -> TrainingSettings:
    return replace(
        settings,
        epochs=settings.student_epochs,
        dropout=settings.student_dropout,
        seed=_seed(settings, settings.members + 1),
    )


def _seed(settings: TrainingSettings, number: int) -> int:
    """A different seed for each model; the student has the last number."""
    return settings.seed * (settings.members + settings.student) + number - 1


def _run(folder: Path, identity: Mapping, settings: TrainingSettings) -> Run:
    stages = {
        cross_entropy.STAGE: settings.epochs,
        self_critical.STAGE: settings.self_critical_epochs,
    }
    return Run(
        folder, {**identity, "settings": training_settings(settings)}, stages, settings.patience
    )


def _train_model(
    run: Run,
    data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    teacher: keras.Model | None = None,
) -> keras.Model:
    """Runs the remaining stages of one model. Returns the model of the best epoch in float32,
    whatever the precision of the training."""
    if run.stage == cross_entropy.STAGE:
        cross_entropy.run_stage(run, data, vocabulary, settings, teacher)
    if run.stage == self_critical.STAGE:
        self_critical.run_stage(run, data, vocabulary, settings)
    return rebuild_caption_model(run.load_best_model(), settings)


def _remove_members(folder: Path) -> None:
    for member_folder in folder.glob(f"{_MEMBER_FOLDER}*"):
        shutil.rmtree(member_folder)
