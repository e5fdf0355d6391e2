"""What every question is asked with."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Plan:
    """`root`: a root folder of the real data, in which `check` and `features` were run, or None for
    data made of the same shape. `most_images`: how far the curve of growth goes; `curve`: the SVG
    file that it is drawn into, if any."""

    root: Path | None = None
    rounds: int = 3
    most_images: int = 10_000
    curve: Path | None = None
