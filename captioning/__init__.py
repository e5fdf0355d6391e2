"""Captions photographs with a CNN-LSTM model, and trains such models.

>>> import captioning
>>> captioner = captioning.load()
>>> print(captioner.caption("photo.jpg"))  # doctest: +SKIP
a dog is running through the grass

To caption, you need only `load` and the three classes below. They are imported when you first use
them, so that `import captioning` takes no time.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from captioning.inference.captioner import Captioner
    from captioning.inference.decoding import Caption
    from captioning.settings import SearchSettings

__all__ = ["Caption", "Captioner", "SearchSettings", "load"]

_MODULES = {
    "Caption": "captioning.inference.decoding",
    "Captioner": "captioning.inference.captioner",
    "SearchSettings": "captioning.settings",
}


def load(root: "str | Path | None" = None, cache: bool = True) -> "Captioner":
    """Loads a trained model.

    `root`: the folder that holds `models/` and `tokenizer.p`; by default the folder that the
    environment variable CAPTIONING_MODEL names, else the model that comes with this package.
    `cache`: whether compiled networks are kept in the user's cache folder, which makes the next
    start faster. Raises FileNotFoundError if a part of the model is missing, UserError, a
    ValueError, if a part is damaged or the parts do not belong together.
    """
    from captioning.inference.captioner import Captioner

    return Captioner.load(root, cache)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
