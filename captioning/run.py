"""A training run on disk: its record, its last epoch and its best one.

How a run goes on follows from its history alone, so one that was killed goes on from its last epoch
as if nothing had happened. Not about what is trained, or how.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras

from captioning.files import write_atomically

BEST_MODEL = "caption_model.keras"
RECORD = "training.json"
MONITOR = "development CIDEr"


class Run:
    """The files of one run in one folder: `training.json` (identity and history), the best epoch as
    `caption_model.keras` and, until the run is over, the last one as `epoch-<n>.keras`."""

    def __init__(self, folder: Path, identity: Mapping, epochs: int, patience: int):
        """Reads what is there. `identity`, made of JSON's types, is what makes two runs the same
        one; ValueError if the run in `folder` has another."""
        self._folder = folder
        self._epochs = epochs
        self._patience = patience
        self._record = _read_record(folder / RECORD, identity)

    @property
    def history(self) -> list[dict[str, float]]:
        """The numbers of each finished epoch."""
        return self._record["history"]

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or `patience` of them brought nothing better."""
        done = len(self.history)
        return done >= self._epochs or (
            done > 0 and done - 1 - best_epoch(self.history) >= self._patience
        )

    def add_epoch(self, model: keras.Model, numbers: Mapping[str, float]) -> None:
        """Keeps an epoch that has just ended: the model first, the history last."""
        self.history.append({name: float(number) for name, number in numbers.items()})
        _save(model, self._last)
        if best_epoch(self.history) == len(self.history) - 1:
            _save(model, self._folder / BEST_MODEL)
        with write_atomically(self._folder / RECORD, "w") as file:
            json.dump(self._record, file, indent=1)
        for path in self._folder.glob("epoch-*.keras"):
            if path != self._last:
                path.unlink()

    def last_model(self) -> keras.Model:
        """The model as of the last epoch, optimizer and random state included."""
        return keras.models.load_model(self._last)

    def best_model(self) -> keras.Model:
        """The model as of the best epoch, not compiled."""
        return keras.models.load_model(self._folder / BEST_MODEL, compile=False)

    def finish(self) -> None:
        """Leaves nothing but the record and the best model, without its optimizer, which is two
        thirds of the file. May be called again."""
        if self._last.exists():
            _save(self.best_model(), self._folder / BEST_MODEL)
            self._last.unlink()

    @property
    def _last(self) -> Path:
        return self._folder / f"epoch-{len(self.history)}.keras"


def best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """The epoch that is kept, counted from 0: the first with the highest development CIDEr."""
    return max(range(len(history)), key=lambda epoch: history[epoch][MONITOR])


def _read_record(path: Path, identity: Mapping) -> dict:
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


def _save(model: keras.Model, path: Path) -> None:
    neighbour = path.with_name(f"saving-{path.name}")
    model.save(neighbour)
    neighbour.replace(path)
