"""Augmentations: flipped or cropped versions of the training photographs, so that a model does not
memorise 6,000 photographs."""

from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from captioning.data.images import Box, load_image
from captioning.data.vocabulary import flip_caption

# The sides of a crop, as shares of width and height: a caption of the whole mostly holds for it.
_CROP_SHARES = 0.72, 0.95

# With the image name, the seed of a crop. The words are older names of the augmentations: with
# others, feature maps that exist would no longer fit.
_CROP_SEED, _FLIPPED_CROP_SEED = "nearer", "nearer_mirrored"


@dataclass(frozen=True)
class Augmentation:
    """One augmentation of all training images; their feature maps are called by its `name`. An
    image is always cropped alike: the crop follows from its name, and from whether it is flipped.
    """

    name: str
    horizontal_flip: bool = False
    random_crop: bool = False

    def load_image(self, path: Path, size: tuple[int, int]) -> np.ndarray:
        """As `captioning.data.images.load_image`, augmented."""
        pixels = load_image(path, size, self._crop(path.name) if self.random_crop else None)
        return pixels[:, ::-1] if self.horizontal_flip else pixels

    def caption(self, caption: str) -> str:
        """The cleaned caption, made to fit the augmented image: flipped, left becomes right."""
        return flip_caption(caption) if self.horizontal_flip else caption

    def _crop(self, image_name: str) -> Box:
        seed = _FLIPPED_CROP_SEED if self.horizontal_flip else _CROP_SEED
        random = np.random.default_rng(crc32(f"{seed} {image_name}".encode()))
        share = random.uniform(*_CROP_SHARES)
        left, top = random.uniform(0, 1 - share, size=2)
        return left, top, left + share, top + share


HORIZONTAL_FLIP = Augmentation("flipped", horizontal_flip=True)
AUGMENTATIONS = (
    HORIZONTAL_FLIP,
    Augmentation("cropped", random_crop=True),
    Augmentation("cropped_flipped", horizontal_flip=True, random_crop=True),
)
