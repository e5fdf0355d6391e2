"""Stores a training run: its record, the model of its last epoch and that of its best epoch.

A run consists of stages, one after the other. Its history is a list of epochs; each epoch is a dict
with its stage and its numbers. A killed run resumes after the last epoch in its history, with the
same result as an uninterrupted run.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path

import keras

from captioning.data.vocabulary import Vocabulary
from captioning.errors import UserError, one_line
from captioning.files import replace_when_written, write_atomically
from captioning.models.backend import uses_xla
from captioning.paths import Paths
from captioning.training.devices import (
    in_this_process,
    is_first_process,
    wait_for_all_processes,
)

MODEL = "caption_model.keras"
RECORD = "training.json"

STAGE_KEY = "stage"  # the name of the stage of an epoch
MEMBER_KEY = "member"  # the number, from 1, of the ensemble member that an epoch trained
CONTINUATION_KEY = "continuation"  # the number, from 1, of the run that continued the model
MONITOR = "development CIDEr"  # the number that is highest in the best epoch
FINE_TUNED_ENCODER = "fine-tuned encoder"  # in a record: the ID of the encoder that the model fits
ENSEMBLE_STAGE = "ensemble"  # marks the entry with the scores of the ensemble, which is no epoch

_LARGEST = 1e30  # larger numbers in a history mean that it is damaged


class Run:
    """A training run in a folder, which holds `training.json` (identity and history) and the models
    of the last and the best epoch, `epoch-<n>.keras`."""

    def __init__(self, folder: Path, identity: Mapping, stages: Mapping[str, int], patience: int):
        """Resumes the run in `folder` or, if no epoch of it is finished, begins one and deletes the
        trained model that an earlier run left there. `identity`, in JSON types, is equal for
        equal runs. `stages`: name -> number of epochs. A stage ends early after `patience` epochs
        without a better one. Raises UserError if the run in `folder` has another identity, or if
        its record is damaged."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._stages = stages
        self._patience = patience
        self._record = read_record(folder, identity)
        if not self.history and is_first_process():
            (folder / MODEL).unlink(missing_ok=True)  # the result of a run before this one

    @property
    def history(self) -> list[dict]:
        """The stage and the numbers of each finished epoch."""
        return self._record["history"]

    @property
    def stage(self) -> str | None:
        """The name of the first stage that is not finished; None if all are."""
        return next((name for name in self._stages if not self._is_finished(name)), None)

    def epochs_done(self, stage: str) -> int:
        """The number of finished epochs of a stage."""
        return len(self._stage_epochs(stage))

    def add_epoch(self, model: keras.Model, numbers: Mapping[str, float]) -> None:
        """Saves an epoch of the current stage: first the model, then the record. With several
        processes, only the first saves it, and the others wait."""
        epoch = {STAGE_KEY: self.stage} | {name: float(number) for name, number in numbers.items()}
        self.history.append(epoch)
        last, best = self._model_path(len(self.history)), self._best_model_path
        if is_first_process():
            _save(model, last)
            _write_record(self.folder, self._record)
            for path in set(self.folder.glob("epoch-*.keras")) - {last, best}:
                path.unlink()
        wait_for_all_processes()

    def load_last_model(self) -> keras.Model:
        """Loads the model of the last epoch, with its optimizer."""
        model = _load(self._model_path(len(self.history)))
        model.jit_compile = uses_xla()  # the epochs before may have run on another backend
        return model

    def load_best_model(self) -> keras.Model:
        """Loads the model of the best epoch so far, not compiled."""
        return _load(self._best_model_path, compile=False)

    def _is_finished(self, stage: str) -> bool:
        epochs = self._stage_epochs(stage)
        return len(epochs) >= self._stages[stage] or (
            len(epochs) > 0 and len(epochs) - 1 - find_best_epoch(epochs) >= self._patience
        )

    def _stage_epochs(self, stage: str) -> list[dict]:
        return [epoch for epoch in self.history if epoch[STAGE_KEY] == stage]

    @property
    def _best_model_path(self) -> Path:
        return self._model_path(find_best_epoch(self.history) + 1)

    def _model_path(self, number: int) -> Path:
        return self.folder / f"epoch-{number}.keras"


def find_best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """Returns the number, from 0, of the first epoch with the highest development CIDEr. Among
    epochs of equal CIDEr, which is always 0 for a single image, the lowest loss decides."""
    return max(
        range(len(history)),
        key=lambda epoch: (history[epoch][MONITOR], -history[epoch].get("val_loss", inf)),
    )


def save_trained(model: keras.Model, record: Mapping, folder: Path) -> None:
    """Writes the trained model to `folder`, and then its record."""
    _save(model, folder / MODEL)
    _write_record(folder, record)


def load_model(folder: Path) -> keras.Model:
    """Loads the trained model in `folder`, not compiled. Raises FileNotFoundError if there is
    none."""
    path = folder / MODEL
    if not path.exists():
        trained = (folder / RECORD).exists()
        remedy = f"Restore it, or delete {RECORD} and train again" if trained else "Train it"
        raise FileNotFoundError(f"There is no {path}. {remedy}: `captioning train`.")
    return _load(path, compile=False)


def load_trained(paths: Paths) -> tuple[keras.Model, Vocabulary, dict]:
    """Loads the result of a run: the model, its vocabulary and its record. Raises FileNotFoundError
    if a file is missing, UserError if model and vocabulary are not from the same run."""
    model, vocabulary = load_model(paths.models), Vocabulary.load(paths.vocabulary)
    record = read_record(paths.models)
    fingerprint = record.get("vocabulary", vocabulary.fingerprint)
    size = model.output_shape[-1]
    if fingerprint != vocabulary.fingerprint or size != len(vocabulary):
        raise UserError(
            f"Expected the vocabulary of {paths.models / MODEL} in {paths.vocabulary}, "
            f"{fingerprint} of {size} words, got {vocabulary.fingerprint} of {len(vocabulary)}. "
            "Take both from one training run."
        )
    return model, vocabulary, record


def read_record(folder: Path, identity: Mapping | None = None) -> dict:
    """Reads the identity and the `history` of the run in `folder`. Without a record, returns the
    given identity and an empty history.

    Raises UserError if the run has another identity, or if the record is damaged. A setting that
    is missing in the record did not exist at the time of the run, and is accepted.
    """
    identity = identity or {}
    path = folder / RECORD
    if not path.exists():
        return {**identity, "history": []}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        for epoch in record["history"]:
            _require_epoch(epoch)
        if not isinstance(record.get("encoder", ""), str):
            raise TypeError("its encoder is not text")
        if not isinstance(record.get("settings", {}), dict):
            raise TypeError("its settings have no names")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UserError(
            f"Expected the record of a training run in {path}, got a damaged file ({error}). "
            "Delete it to train again."
        ) from error
    # Runs of older versions, whose records lack "start", began from scratch, and fine-tuning then
    # had nothing but soft targets.
    past = {"start": None} | record
    past["settings"] = {"fine_tuning_soft_target_share": 1.0} | record.get("settings", {})
    if differences := list(_differences(past, identity)):
        raise UserError(
            f"Expected the record of this run in {path}, got that of another run: "
            f"{'; '.join(differences)}. Delete it to begin a new run, or restore what you changed "
            "to resume that run."
        )
    return record


def _require_epoch(epoch: dict) -> None:
    """Raises an error unless the epoch has a stage and numbers, CIDEr among them."""
    numbers = {name: number for name, number in epoch.items() if name != STAGE_KEY}
    if not isinstance(epoch[STAGE_KEY], str) or MONITOR not in numbers:
        raise ValueError(f"an epoch has no stage or no {MONITOR}")
    for name, number in numbers.items():
        if type(number) not in (int, float) or not -_LARGEST < number < _LARGEST:
            raise ValueError(f"an epoch has the {name} {number!r:.80}")


def _differences(record: Mapping, identity: Mapping, prefix: str = "") -> Iterator[str]:
    """Yields each difference, such as "settings units 384 instead of 13"."""
    for key, expected in identity.items():
        value = record.get(key, expected)
        if isinstance(expected, Mapping) and isinstance(value, Mapping):
            yield from _differences(value, expected, f"{key} ")
        elif value != expected:
            yield f"{prefix}{key} {value} instead of {expected}"


def _load(path: Path, compile: bool = True) -> keras.Model:
    try:
        return keras.models.load_model(path, compile=compile)
    except Exception as error:  # Keras raises errors of nearly every class for a damaged file
        raise UserError(
            f"Expected a whole model in {path}, got a missing or damaged file "
            f"({one_line(error)}). Restore it, or delete {path.parent / RECORD} and train again."
        ) from error


def _write_record(folder: Path, record: Mapping) -> None:
    with write_atomically(folder / RECORD, "w") as file:
        json.dump(record, file, indent=1)


def _save(model: keras.Model, path: Path) -> None:
    with replace_when_written(path) as neighbour, in_this_process():
        model.save(neighbour)
