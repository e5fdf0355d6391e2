"""Captions and features in, what a caption model is trained and chosen on out."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType

import numpy as np

from captioning.data.augmentation import Augmentation
from captioning.data.dataset import Captions, select
from captioning.data.feature_store import encoder_id_of
from captioning.data.vocabulary import Vocabulary
from captioning.inference.network_files import without_precision
from captioning.settings import TrainingSettings


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained and chosen on.

    `train` and `development`: image name -> cleaned captions; `references`: image name -> captions
    of the development images as written; `features`: image name -> feature map (cells,
    feature_width); `views`: ways to look at the training images besides as they are, and the same
    of the images looked at so.
    """

    train: Mapping[str, Sequence[str]]
    development: Mapping[str, Sequence[str]]
    references: Mapping[str, Sequence[str]]
    features: Mapping[str, np.ndarray]
    views: Mapping[Augmentation, Mapping[str, np.ndarray]] = field(default_factory=dict)

    @classmethod
    def of_splits(
        cls,
        descriptions: Captions,
        captions: Captions,
        splits: Mapping[str, Sequence[str]],
        features: Mapping[str, np.ndarray],
        views: Mapping[Augmentation, Mapping[str, np.ndarray]] = MappingProxyType({}),
    ) -> "TrainingData":
        """From cleaned `descriptions` and `captions` as written, of all images. An image that the
        descriptions leave out, since it or its captions cannot be used, is left out here."""
        development = select(descriptions, splits["development"])
        return cls(
            train=select(descriptions, splits["train"]),
            development=development,
            references=select(captions, list(development)),
            features=features,
            views=views,
        )

    def averaged(self) -> "TrainingData":
        """The same with the average of each feature map as a map of one cell: all that the merge
        decoder sees of one, and read once instead of in every epoch."""
        images = (*self.train, *self.development)
        return replace(
            self,
            features=_averages(self.features, images),
            views={view: _averages(maps, self.train) for view, maps in self.views.items()},
        )

    def encoded_views(self, vocabulary: Vocabulary) -> list[tuple[dict, Mapping]]:
        """The training images as they are, and then in each of the `views`: encoded captions and
        features."""
        encoded = [(vocabulary.encode_captions(self.train), self.features)]
        for view, features in self.views.items():
            captions = {
                name: [view.caption(caption) for caption in of] for name, of in self.train.items()
            }
            encoded.append((vocabulary.encode_captions(captions), features))
        return encoded

    @property
    def feature_width(self) -> int:
        """In numbers a cell."""
        return next(iter(self.features.values())).shape[-1]

    @property
    def encoder_id(self) -> str | None:
        """What made the features, if they tell."""
        return encoder_id_of(self.features)

    @property
    def fingerprint(self) -> str:
        """Equal for equal captions of equally named images."""
        captions = json.dumps([self.train, self.development], sort_keys=True)
        return hashlib.sha256(captions.encode()).hexdigest()[:16]

    @property
    def longest_caption(self) -> int:
        """In words, over the training captions: no model says more."""
        return longest_caption(self.train)


def identify_run(data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings) -> dict:
    """What makes two training runs the same one, made of JSON's types."""
    identity = {
        "settings": asdict(settings),
        "vocabulary": vocabulary.fingerprint,
        "captions": data.fingerprint,
        "views": 1 + len(data.views),
    }
    if data.encoder_id:
        identity["encoder"] = without_precision(data.encoder_id)
    return identity


def longest_caption(descriptions: Mapping[str, Sequence[str]]) -> int:
    """Of cleaned captions (image name -> captions), in words."""
    return max(len(caption.split()) for of_image in descriptions.values() for caption in of_image)


def _averages(
    features: Mapping[str, np.ndarray], image_names: Iterable[str]
) -> dict[str, np.ndarray]:
    """Image name -> (1, feature_width) float32, of those images that have features."""
    return {
        name: features[name].mean(axis=0, dtype="float32", keepdims=True)
        for name in image_names
        if name in features
    }
