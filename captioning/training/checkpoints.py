"""A training run on disk: its record, its last epoch and its best epoch.

A run has stages, one after the other. How it resumes follows from its history alone, so a run that
was killed resumes from its last epoch as if nothing had happened. The history is a list of epochs,
a dict of numbers each. Not about how a model is trained.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from types import MappingProxyType

import keras

from captioning.data.vocabulary import Vocabulary
from captioning.files import replace_when_written, write_atomically
from captioning.paths import Paths

MODEL = "caption_model.keras"
RECORD = "training.json"

STAGE_KEY = "stage"  # of an epoch: the name of its stage
MEMBER_KEY = "member"  # of an epoch of an ensemble or of the teachers: the model, counted from 1
MONITOR = "development CIDEr"  # the number that decides which epoch is best
ENSEMBLE_STAGE = "ensemble"  # of the entry that is no epoch but holds the scores of the ensemble

_NO_IDENTITY = MappingProxyType({})


class Run:
    """The files of a run in one folder: `training.json` (identity and history), the last and the
    best epoch as `epoch-<n>.keras`."""

    def __init__(self, folder: Path, identity: Mapping, stages: Mapping[str, int], patience: int):
        """Begins a run, or resumes the one in `folder`. `identity`, in JSON's types, makes two runs
        the same run; raises ValueError if the run in `folder` has another, or if its record is
        damaged. `stages`: name -> epochs; a stage ends early after `patience` epochs that brought
        nothing better."""
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._stages = stages
        self._patience = patience
        self._record = read_record(folder, identity)

    @property
    def history(self) -> list[dict]:
        """The stage and the numbers of each finished epoch."""
        return self._record["history"]

    @property
    def stage(self) -> str | None:
        """The name of the first stage that is not over; None when all are."""
        return next((name for name in self._stages if not self._is_over(name)), None)

    def epochs_done(self, stage: str) -> int:
        """The number of finished epochs of a stage."""
        return len(self._epochs_of(stage))

    def add_epoch(self, model: keras.Model, numbers: Mapping[str, float]) -> None:
        """Saves an epoch that has just ended: the model first, then the record that names it."""
        epoch = {STAGE_KEY: self.stage} | {name: float(number) for name, number in numbers.items()}
        self.history.append(epoch)
        last, best = self._model_path(len(self.history)), self._best_model_path
        _save(model, last)
        _write_record(self._folder, self._record)
        for path in set(self._folder.glob("epoch-*.keras")) - {last, best}:
            path.unlink()

    def last_model(self) -> keras.Model:
        """The model as of the last epoch, with its optimizer."""
        return keras.models.load_model(self._model_path(len(self.history)))

    def best_model(self) -> keras.Model:
        """The model as of the best epoch so far, not compiled."""
        return keras.models.load_model(self._best_model_path, compile=False)

    def _is_over(self, stage: str) -> bool:
        epochs = self._epochs_of(stage)
        return len(epochs) >= self._stages[stage] or (
            len(epochs) > 0 and len(epochs) - 1 - best_epoch(epochs) >= self._patience
        )

    def _epochs_of(self, stage: str) -> list[dict]:
        return [epoch for epoch in self.history if epoch[STAGE_KEY] == stage]

    @property
    def _best_model_path(self) -> Path:
        return self._model_path(best_epoch(self.history) + 1)

    def _model_path(self, number: int) -> Path:
        return self._folder / f"epoch-{number}.keras"


def best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """The epoch to keep, counted from 0: the first with the highest development CIDEr; among equal
    ones (with a single image, CIDEr is always 0) the one with the lowest loss."""
    return max(
        range(len(history)),
        key=lambda epoch: (history[epoch][MONITOR], -history[epoch].get("val_loss", inf)),
    )


def epochs_of_last_model(history: Sequence[Mapping]) -> list[Mapping]:
    """The epochs of the model that was trained last: the student, the single model, or the last
    member of an ensemble."""
    epochs = [epoch for epoch in history if epoch[STAGE_KEY] != ENSEMBLE_STAGE]
    last_member = epochs[-1].get(MEMBER_KEY)
    return [epoch for epoch in epochs if epoch.get(MEMBER_KEY) == last_member]


def save_trained(model: keras.Model, record: Mapping, folder: Path) -> None:
    """Writes the result of a training into `folder`: the model first, then the record, whose
    history tells that the training is over."""
    _save(model, folder / MODEL)
    _write_record(folder, record)


def load_model(folder: Path) -> keras.Model:
    """The trained model in `folder`, not compiled. Raises FileNotFoundError if there is none."""
    path = folder / MODEL
    if not path.exists():
        trained = (folder / RECORD).exists()
        remedy = f"Restore it, or delete {RECORD} and train again" if trained else "Train it"
        raise FileNotFoundError(f"There is no {path}. {remedy}: `python -m captioning train`.")
    return keras.models.load_model(path, compile=False)


def load_trained(paths: Paths) -> tuple[keras.Model, Vocabulary, dict]:
    """The result of a run: the model, its vocabulary and its record. Raises ValueError if model and
    vocabulary are not from the same run."""
    model, vocabulary = load_model(paths.models), Vocabulary.load(paths.vocabulary)
    record = read_record(paths.models)
    fingerprint = record.get("vocabulary", vocabulary.fingerprint)
    size = model.output_shape[-1]
    if fingerprint != vocabulary.fingerprint or size != len(vocabulary):
        raise ValueError(
            f"Expected in {paths.vocabulary} the vocabulary of {paths.models / MODEL}, "
            f"{fingerprint} of {size} words, got {vocabulary.fingerprint} of {len(vocabulary)}. "
            "Take both from one training run."
        )
    return model, vocabulary, record


def read_record(folder: Path, identity: Mapping = _NO_IDENTITY) -> dict:
    """The identity and the `history` of the run in `folder`; the given identity and an empty
    history if there is no record. Raises ValueError if the run has another identity, or if the
    record is damaged. Settings that the record does not name did not exist at its time and are
    accepted."""
    path = folder / RECORD
    if not path.exists():
        return {**identity, "history": []}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or "history" not in record:
            raise ValueError("it holds no history")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it to train again.") from error
    differences = list(_differences(record, identity))
    if differences:
        raise ValueError(
            f"{path} belongs to another run: {'; '.join(differences)}. Delete it to begin a new "
            "run, or restore what you changed to resume that one."
        )
    return record


def _differences(record: Mapping, identity: Mapping, prefix: str = "") -> Iterator[str]:
    """Lines such as "units 384 there, 13 here"."""
    for key, here in identity.items():
        there = record.get(key, here)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            yield from _differences(there, here, f"{key} ")
        elif there != here:
            yield f"{prefix}{key} {there} there, {here} here"


def _write_record(folder: Path, record: Mapping) -> None:
    with write_atomically(folder / RECORD, "w") as file:
        json.dump(record, file, indent=1)


def _save(model: keras.Model, path: Path) -> None:
    with replace_when_written(path) as neighbour:
        model.save(neighbour)
