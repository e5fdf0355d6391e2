"""A training run on disk: its record, its last epoch and its best one.

A run has stages, one after the other. How it goes on follows from its history alone, so one that
was killed goes on from its last epoch as if nothing had happened. Not about what is trained.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import keras

from captioning.data.vocabulary import Vocabulary
from captioning.files import replace_when_written, write_atomically
from captioning.paths import Paths
from captioning.training.history import STAGE_KEY, best_epoch

MODEL = "caption_model.keras"
RECORD = "training.json"


class Run:
    """The files of one run in one folder: `training.json` (identity and history), the last and the
    best epoch as `epoch-<n>.keras`."""

    def __init__(self, folder: Path, identity: Mapping, stages: Mapping[str, int], patience: int):
        """Reads what is there. `identity`, a dict made of JSON's types, is what makes two runs the
        same one; ValueError if the run in `folder` has another, or its record is damaged. `stages`:
        name -> epochs, of which those are left out that come after `patience` epochs that brought
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
        """The name of the stage that is to go on; None when all are over."""
        return next((name for name in self._stages if not self._is_over(name)), None)

    def epochs_done(self, stage: str) -> int:
        """How many epochs of a stage are finished."""
        return len(self._of(stage))

    def add_epoch(self, model: keras.Model, numbers: Mapping[str, float]) -> None:
        """Keeps an epoch that has just ended: the model first, then the record that names it."""
        epoch = {STAGE_KEY: self.stage} | {name: float(number) for name, number in numbers.items()}
        self.history.append(epoch)
        last, best = self._epoch_model(len(self.history)), self._best_epoch_model
        _save(model, last)
        _write_record(self._folder, self._record)
        for path in set(self._folder.glob("epoch-*.keras")) - {last, best}:
            path.unlink()

    def last_model(self) -> keras.Model:
        """The model as of the last epoch, optimizer included."""
        return keras.models.load_model(self._epoch_model(len(self.history)))

    def best_model(self) -> keras.Model:
        """The model as of the best epoch so far, not compiled."""
        return keras.models.load_model(self._best_epoch_model, compile=False)

    def _is_over(self, stage: str) -> bool:
        history = self._of(stage)
        done = len(history)
        return done >= self._stages[stage] or (
            done > 0 and done - 1 - best_epoch(history) >= self._patience
        )

    def _of(self, stage: str) -> list[dict]:
        return [epoch for epoch in self.history if epoch[STAGE_KEY] == stage]

    @property
    def _best_epoch_model(self) -> Path:
        return self._epoch_model(best_epoch(self.history) + 1)

    def _epoch_model(self, number: int) -> Path:
        return self._folder / f"epoch-{number}.keras"


def save_trained(model: keras.Model, record: Mapping, folder: Path) -> None:
    """Writes what came out of training into `folder`: the model first, then the record, which says
    by its history that training is over."""
    _save(model, folder / MODEL)
    _write_record(folder, record)


def load_model(folder: Path) -> keras.Model:
    """The model that came out of the training in `folder`, not compiled."""
    path = folder / MODEL
    if not path.exists():
        trained = (folder / RECORD).exists()
        remedy = f"Restore it, or delete {RECORD} and train anew" if trained else "Train it"
        raise FileNotFoundError(f"There is no {path}. {remedy}: `python -m captioning train`.")
    return keras.models.load_model(path, compile=False)


def load_trained(files: Paths) -> tuple[keras.Model, Vocabulary, dict]:
    """What a run left behind: the model, its vocabulary and its record. Raises ValueError if model
    and vocabulary are not of one run."""
    model, vocabulary = load_model(files.models), Vocabulary.load(files.vocabulary)
    record = read_record(files.models)
    wanted = record.get("vocabulary", vocabulary.fingerprint)
    size = model.output_shape[-1]
    if wanted != vocabulary.fingerprint or size != len(vocabulary):
        raise ValueError(
            f"{files.models / MODEL} and {files.vocabulary} do not belong together. Wanted: "
            f"vocabulary {wanted}, of {size} words. Received: {vocabulary.fingerprint}, of "
            f"{len(vocabulary)}. Take both from one training run."
        )
    return model, vocabulary, record


def read_record(folder: Path, identity: Mapping = MappingProxyType({})) -> dict:
    """The identity and the `history` of the run in `folder`; where none is recorded, the one given
    and no epochs. Raises ValueError if it has another identity, or if the record is damaged. What a
    record does not name could not be chosen when it was made, and is let pass."""
    path = folder / RECORD
    if not path.exists():
        return {**identity, "history": []}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or "history" not in record:
            raise ValueError("it holds no history")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it to train anew.") from error
    differences = list(_differences(record, identity))
    if differences:
        raise ValueError(
            f"{path} belongs to another run: {'; '.join(differences)}. To begin a new run, delete "
            "it; to go on with that one, restore what was changed."
        )
    return record


def _differences(record: Mapping, identity: Mapping, prefix: str = ""):
    """Lines such as "units: 384 there, 13 here"."""
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
