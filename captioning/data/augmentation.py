"""Ways to look at a training photograph besides as it is: in a mirror, from nearer.

6,000 photographs are soon known by heart; seen in several ways, they are not known so soon.
"""

from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from captioning.data.images import Box, load_image
from captioning.data.vocabulary import flip_caption

_NEARER = 0.72, 0.95  # of width and height: what is said of the whole still holds for most of it


@dataclass(frozen=True)
class Augmentation:
    """A way to look. `name` is that of its feature maps; `nearer`, it sees a part of each image
    only, which follows from the names of image and view."""

    name: str
    mirrored: bool = False
    nearer: bool = False

    def load_image(self, path: Path, size: tuple[int, int]) -> np.ndarray:
        """As `captioning.data.images.load_image`, seen in this way."""
        pixels = load_image(path, size, self._part(path.name) if self.nearer else None)
        return pixels[:, ::-1] if self.mirrored else pixels

    def caption(self, caption: str) -> str:
        """What a cleaned caption of the image says of it seen in this way."""
        return flip_caption(caption) if self.mirrored else caption

    def _part(self, image_name: str) -> Box:
        random = np.random.default_rng(crc32(f"{self.name} {image_name}".encode()))
        side = random.uniform(*_NEARER)
        left, top = random.uniform(0, 1 - side, size=2)
        return left, top, left + side, top + side


HORIZONTAL_FLIP = Augmentation("mirrored", mirrored=True)
AUGMENTATIONS = (
    HORIZONTAL_FLIP,
    Augmentation("nearer", nearer=True),
    Augmentation("nearer_mirrored", mirrored=True, nearer=True),
)
