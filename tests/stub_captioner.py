"""Captioners without a model, for jobs at scale. Ray's workers import this module by its name."""

import os
import time
from pathlib import Path

from captioning.errors import UserError
from captioning.inference.decoding import Caption


class StubCaptioner:
    """The caption of an image is its name, and an image whose name contains "broken" fails."""

    def __init__(self, seconds: float = 0, log: str | None = None):
        """Waits so many seconds an image, and writes a line for each to the file `log`."""
        self._seconds = seconds
        self._log = log

    def stream(self, images, num_captions=1, search=None):
        for image in images:
            name = Path(getattr(image, "name", image)).name
            if self._seconds:  # even a sleep of 0 s takes 0.07 ms
                time.sleep(self._seconds)
            if self._log:
                with open(self._log, "a", encoding="utf-8") as log:
                    log.write(f"{name}\n")
            if "broken" in name:
                yield image, OSError(f"{name} cannot be read.")
            else:
                yield image, [Caption(name, -1.0, 0.5)]


def load_stub(root):
    return StubCaptioner()


def load_nothing(root):
    raise UserError("Expected a model, got none. Train one.")


def load_slow_stub(root):
    """One that writes a log, to see which images were captioned how often."""
    return StubCaptioner(seconds=0.02, log=os.environ["STUB_LOG"])
