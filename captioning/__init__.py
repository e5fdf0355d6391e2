"""Captions photographs with a CNN-LSTM, and trains it.

>>> import captioning
>>> captioner = captioning.load()
>>> print(captioner.caption("photo.jpg"))  # doctest: +SKIP
a dog is running through the grass

`load` and the three classes below are all that captioning needs. They are imported when they are
first used: training and preparing data need no OpenVINO.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from captioning.inference.captioner import Captioner
    from captioning.inference.networks import Caption
    from captioning.settings import SearchSettings

__all__ = ["Caption", "Captioner", "SearchSettings", "load"]

_MODULES = {
    "Caption": "captioning.inference.networks",
    "Captioner": "captioning.inference.captioner",
    "SearchSettings": "captioning.settings",
}


def load(root: "str | Path | None" = None) -> "Captioner":
    """Loads a trained model, ready to caption: see `Captioner`.

    `root`: the folder that holds `models/` and `tokenizer.p`. Without one, the folder that the
    environment variable CAPTIONING_MODEL names, else the model that comes with this package. Raises
    FileNotFoundError if a part of the model is missing, ValueError if one is damaged or the parts
    do not belong together.
    """
    from captioning.inference.captioner import Captioner

    return Captioner.load(root)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
