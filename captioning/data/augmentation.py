"""Augmentations: flipped or cropped versions of the training photographs, so that a model does not
memorise 6,000 photographs.

The features of `AUGMENTATIONS` are stored. Those of `MANY_AUGMENTATIONS`, with ten random crops,
would take seven times the disk, so they are computed while a model trains."""

from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from captioning.data.images import Box, load_image

# The sides of a crop, as shares of width and height. The caption of the whole image still fits most
# crops of this size.
_CROP_SHARES = 0.72, 0.95

# The seed of a crop, together with the file name. The words are former names of the augmentations:
# new ones would change the crops, and existing feature maps would no longer fit.
_CROP_SEED, _FLIPPED_CROP_SEED = "nearer", "nearer_mirrored"

# In captions, "right" nearly always means the side.
_OTHER_SIDES = {
    "left": "right", "lefthand": "righthand", "leftmost": "rightmost", "lefty": "righty",
}  # fmt: skip
_OTHER_SIDES |= {right: left for left, right in _OTHER_SIDES.items()}


@dataclass(frozen=True)
class Augmentation:
    """An augmentation of all training images, whose file of feature maps bears its `name`. The
    random crop of an image depends only on its file name, on the number of the crop (0: none) and
    on whether the image is flipped.
    """

    name: str
    horizontal_flip: bool = False
    crop: int = 0

    def load_image(self, path: Path, size: tuple[int, int]) -> np.ndarray:
        """Loads an image as `captioning.data.images.load_image` does, and augments it."""
        pixels = load_image(path, size, self._box(path.name) if self.crop else None)
        return pixels[:, ::-1] if self.horizontal_flip else pixels

    def caption(self, caption: str) -> str:
        """Returns the cleaned caption for the augmented image.

        >>> HORIZONTAL_FLIP.caption("the dog on the left looks right")
        'the dog on the right looks left'
        """
        if not self.horizontal_flip:
            return caption
        return " ".join(_OTHER_SIDES.get(word, word) for word in caption.split())

    def _box(self, file_name: str) -> Box:
        seed = _FLIPPED_CROP_SEED if self.horizontal_flip else _CROP_SEED
        name_bytes = f"{seed} {file_name}".encode("utf-8", "surrogatepass")
        random = np.random.default_rng(crc32(name_bytes) + self.crop - 1)
        share = random.uniform(*_CROP_SHARES)
        left, top = random.uniform(0, 1 - share, size=2)
        return left, top, left + share, top + share


def make_augmentations(crops: int) -> tuple[Augmentation, ...]:
    """Returns the flip and `crops` random crops, each of the plain and of the flipped image."""
    augmentations = [HORIZONTAL_FLIP]
    for crop in range(1, crops + 1):
        suffix = f"_{crop}" if crop > 1 else ""
        augmentations.append(Augmentation(f"cropped{suffix}", crop=crop))
        augmentations.append(Augmentation(f"cropped_flipped{suffix}", True, crop))
    return tuple(augmentations)


HORIZONTAL_FLIP = Augmentation("flipped", horizontal_flip=True)
AUGMENTATIONS = make_augmentations(crops=1)
MANY_AUGMENTATIONS = make_augmentations(crops=10)
