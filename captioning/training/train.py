"""The journey from captions and features to a trained model.

First the model learns word by word what people wrote, then from what its own captions are worth.
Each epoch ends with captions for the development images: the epoch with the best CIDEr is kept, and
a stage stops when it has not risen for a while.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np

from captioning.data.augmentation import Augmentation
from captioning.data.dataset import Captions, Dataset, select
from captioning.data.vocabulary import Vocabulary, clean_captions
from captioning.export.keras_to_openvino import export_decoder
from captioning.inference.networks import Decoder
from captioning.inference.openvino_runtime import training_precision
from captioning.models.caption_model import build_caption_model
from captioning.models.ensemble import build_ensemble
from captioning.paths import Paths
from captioning.settings import TrainingSettings
from captioning.training import self_critical, teacher_forcing
from captioning.training.checkpoints import Run, load_model, load_trained, read_record, save_trained
from captioning.training.distillation import build_teacher
from captioning.training.history import ENSEMBLE_STAGE, MEMBER_KEY, STAGE_KEY
from captioning.training.training_data import TrainingData, identify_run, longest_caption
from captioning.training.validation import validate

_MEMBER_FOLDER = "member-"


def train(
    data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings, folder: Path
) -> tuple[keras.Model, list[dict]]:
    """Trains the caption model; returns it as of its best epoch, and a dict of numbers an epoch.

    With `settings.members` above 1, that many are trained one after the other, and their ensemble
    is returned; with `settings.student`, they teach one more, and that is. Meanwhile the `Run`
    of each lies in a folder of its own in `folder`, which in the end holds the model and the
    record. A call that finds an unfinished run there goes on with it, and returns a finished one as
    it is; ValueError if that run had other settings, captions, words or views, or another encoder,
    or if an image has no features.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identity = identify_run(data, vocabulary, settings)
    history = read_record(folder, identity)["history"]
    if history:
        _remove_members(folder)  # of which a killed run may have left some
        return load_model(folder), history
    if settings.uses_pooled_features:
        data = data.averaged()
    settings_of_each = _settings_of_each(settings)
    members = []
    for number, of_member in enumerate(settings_of_each[: settings.members], start=1):
        run = _run(folder / f"{_MEMBER_FOLDER}{number}", identity, of_member)
        members.append(_train_one(run, data, vocabulary, of_member))
        note = {MEMBER_KEY: number} if settings.members > 1 or settings.student else {}
        history += [epoch | note for epoch in run.history]
    model = build_ensemble(members)
    if settings.members > 1:
        history.append({STAGE_KEY: ENSEMBLE_STAGE, **validate(model, data, vocabulary)})
    if settings.student:
        for_student = settings_of_each[-1]
        run = _run(folder / f"{_MEMBER_FOLDER}student", identity, for_student)
        teacher = build_teacher(members, settings, training_precision())
        model = _train_one(run, data, vocabulary, for_student, teacher)
        history += run.history
    save_trained(model, identity | {"history": history}, folder)
    _remove_members(folder)
    return model, history


def _settings_of_each(settings: TrainingSettings) -> list[TrainingSettings]:
    """Of each member, then of their student. Each has a seed of its own. Who is to teach learns
    from people alone, and so knows how probable words are; self-critical training knows what pays.
    """
    count = settings.members + settings.student
    each = [replace(settings, seed=settings.seed * count + number) for number in range(count)]
    if not settings.student:
        return each
    *teachers, student = each
    teachers = [replace(teacher, self_critical_epochs=0) for teacher in teachers]
    return [*teachers, student.for_student()]


def _remove_members(folder: Path) -> None:
    for member_folder in folder.glob(f"{_MEMBER_FOLDER}*"):
        shutil.rmtree(member_folder)


def _run(folder: Path, identity: Mapping, settings: TrainingSettings) -> Run:
    stages = {
        teacher_forcing.STAGE: settings.epochs,
        self_critical.STAGE: settings.self_critical_epochs,
    }
    return Run(folder, {**identity, "settings": asdict(settings)}, stages, settings.patience)


def _train_one(
    run: Run,
    data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    teacher: keras.Model | None = None,
) -> keras.Model:
    if run.stage == teacher_forcing.STAGE:
        teacher_forcing.learn(run, data, vocabulary, settings, teacher)
    if run.stage == self_critical.STAGE:
        self_critical.learn(run, data, vocabulary, settings)
    # Whatever it was trained in, the model is kept in float32.
    model = build_caption_model(len(vocabulary), data.feature_width, settings)
    model.set_weights(run.best_model().get_weights())
    return model


def train_and_export(
    descriptions: Captions,
    captions: Captions,
    splits: Mapping[str, Sequence[str]],
    features: Mapping[str, np.ndarray],
    views: Mapping[Augmentation, Mapping[str, np.ndarray]],
    settings: TrainingSettings,
    files: Paths,
) -> list[dict]:
    """From cleaned `descriptions` and `captions` as written to all that captioning needs: trains in
    `files.models`, then writes the vocabulary and the exported decoder. Returns the history."""
    data = TrainingData.of_splits(descriptions, captions, splits, features, views)
    vocabulary = Vocabulary.from_captions(
        (caption for of_image in data.train.values() for caption in of_image),
        settings.min_word_count,
    )
    model, history = train(data, vocabulary, settings, files.models)
    vocabulary.save(files.vocabulary)
    export_decoder(model, vocabulary, data.longest_caption, files.models, data.encoder_id)
    return history


def export_anew(files: Paths) -> None:
    """Writes the exported decoder anew from the model and the vocabulary that a run left behind.

    The limit of the search is that of the training captions where the data set is at hand, and that
    of the present export where it is not, as with a model from elsewhere. ValueError if model and
    vocabulary are not of one run.
    """
    model, vocabulary, record = load_trained(files)
    if files.dataset.exists():
        dataset = Dataset.load(files.dataset)
        train = clean_captions(select(dataset.captions, dataset.splits["train"]))
        words = longest_caption(train)
    else:
        words = Decoder.load(files.models, vocabulary).longest_caption
    export_decoder(model, vocabulary, words, files.models, record.get("encoder"))
