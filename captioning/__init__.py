"""Photographs in, captions out: a CNN-LSTM for Flickr8k and all that it takes to train it.

from captioning import Captioner

print(Captioner.load().caption("photo.jpg"))
"""

__all__ = ["Captioner"]


def __getattr__(name: str):
    if name == "Captioner":  # only now: preparing data and training need no OpenVINO
        from captioning.inference.captioner import Captioner

        return Captioner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
