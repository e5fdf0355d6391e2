"""Features that are computed when they are read, for data sets whose feature maps are too large to
store: 0.4 MB an image with Xception, and as much for each augmentation."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from captioning.data.images import load_image
from captioning.inference.encoder import Encoder
from captioning.inference.extract_features import Load


class LazyFeatures(Mapping):
    """Image name -> feature map (cells, feature_width) float16, which the encoder computes at each
    reading. Safe to read from several threads."""

    def __init__(
        self,
        encoder: Encoder,
        folder: Path,
        image_names: Collection[str],
        load: Load = load_image,
    ):
        """`load` loads an image in `folder`, plain or augmented. Reading the features of an image
        raises its errors."""
        self._encoder = encoder
        self._folder = folder
        self._image_names = dict.fromkeys(image_names)
        self._load = load

    def __getitem__(self, image_name: str) -> np.ndarray:
        if image_name not in self:
            raise KeyError(image_name)
        pixels = self._load(self._folder / image_name, self._encoder.image_size)
        (feature_map,) = self._encoder(pixels[None])
        return feature_map.astype("float16")

    def __contains__(self, image_name: object) -> bool:
        return image_name in self._image_names

    def __iter__(self) -> Iterator[str]:
        return iter(self._image_names)

    def __len__(self) -> int:
        return len(self._image_names)
