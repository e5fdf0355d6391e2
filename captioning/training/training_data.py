"""The captions and features on which a caption model is trained and validated."""

import hashlib
import json
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from captioning.data.augmentation import AUGMENTATIONS, MANY_AUGMENTATIONS, Augmentation
from captioning.data.dataset import Captions, Dataset, load_with_descriptions, select
from captioning.data.feature_store import FeatureStore, encoder_id_of, load_pooled_features
from captioning.data.vocabulary import Vocabulary
from captioning.errors import UserError
from captioning.export.provide_encoder import provide_encoder
from captioning.inference.encoder import Encoder
from captioning.inference.extract_features import extract_feature_maps
from captioning.inference.lazy_features import LazyFeatures
from captioning.inference.network_files import ENCODER, network_exists, read_network
from captioning.inference.openvino_runtime import read_encoder_id, without_precision
from captioning.paths import Paths
from captioning.settings import TrainingSettings
from captioning.training.batches import Features, Variant
from captioning.training.devices import first_process_first


@dataclass(frozen=True)
class TrainingData:
    """The images of the training and the development split.

    `train`, `development`: image name -> cleaned captions. `references`: image name -> captions as
    written, of the development images. `features`: image name -> feature map (cells,
    feature_width), or pooled features (feature_width,), which are enough for the merge decoder.
    `augmented_features`: augmentation -> features of the augmented training images. `encoder_id`:
    the encoder that made the features; None if it is unknown.
    """

    train: Mapping[str, Sequence[str]]
    development: Mapping[str, Sequence[str]]
    references: Mapping[str, Sequence[str]]
    features: Features
    augmented_features: Mapping[Augmentation, Features] = field(default_factory=dict)
    encoder_id: str | None = None

    @classmethod
    def from_dataset(
        cls,
        dataset: Dataset,
        descriptions: Captions,
        features: Features,
        augmented_features: Mapping[Augmentation, Features] | None = None,
        encoder_id: str | None = None,
    ) -> "TrainingData":
        """Selects the captions of both splits from the `dataset` and its cleaned `descriptions`.
        Give the `encoder_id` of features that do not name their encoder, as a `FeatureStore`
        does."""
        return cls(
            train=select(descriptions, dataset.splits["train"]),
            development=select(descriptions, dataset.splits["development"]),
            references=dataset.captions_of("development"),
            features=features,
            augmented_features=augmented_features or {},
            encoder_id=encoder_id or encoder_id_of(features),
        )

    def pooled(self) -> "TrainingData":
        """Returns the same data with maps of one cell, the averages of the feature maps. The merge
        decoder uses nothing else, and so reads the feature maps only once."""
        return replace(
            self,
            features=_pool(self.features, (*self.train, *self.development)),
            augmented_features={
                augmentation: _pool(features, self.train)
                for augmentation, features in self.augmented_features.items()
            },
        )

    def with_lazy_features(self, encoder: Encoder, folder: Path, path: Path) -> "TrainingData":
        """Returns the same data with other features. `encoder` computes those of the training
        images in `folder`, plain and with each of the `MANY_AUGMENTATIONS`, when a batch reads
        them. Those of the development images, which every epoch reads, are stored in `path`."""
        stored = extract_feature_maps(encoder, folder, self.development, path)
        return replace(
            self,
            features=ChainMap(stored, LazyFeatures(encoder, folder, self.train)),
            augmented_features={
                augmentation: LazyFeatures(encoder, folder, self.train, augmentation.load_image)
                for augmentation in MANY_AUGMENTATIONS
            },
            encoder_id=encoder.encoder_id,
        )

    def encode(self, vocabulary: Vocabulary) -> list[Variant]:
        """Returns encoded captions and features of the training images: plain, and then with each
        augmentation. Variants with equal captions share one object."""
        encoded = {False: vocabulary.encode_captions(self.train)}  # by whether they are flipped
        variants = [Variant(encoded[False], self.features)]
        for augmentation, features in self.augmented_features.items():
            is_flipped = augmentation.horizontal_flip
            if is_flipped not in encoded:
                flipped = {name: map(augmentation.caption, self.train[name]) for name in self.train}
                encoded[is_flipped] = vocabulary.encode_captions(flipped)
            variants.append(Variant(encoded[is_flipped], features, is_flipped))
        return variants

    def encode_development(self, vocabulary: Vocabulary) -> list[Variant]:
        """Returns encoded captions and features of the development images."""
        return [Variant(vocabulary.encode_captions(self.development), self.features)]

    @property
    def feature_width(self) -> int:
        """The number of features in each cell."""
        return next(iter(self.features.values())).shape[-1]

    @property
    def has_feature_maps(self) -> bool:
        """Whether the features are maps (cells, feature_width), even of one cell, not vectors."""
        return next(iter(self.features.values())).ndim == 2

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits, which are equal for equal captions of images of the same names."""
        captions = json.dumps([self.train, self.development], sort_keys=True)
        return hashlib.sha256(captions.encode()).hexdigest()[:16]

    @property
    def longest_caption(self) -> int:
        """The length of the longest training caption in words, which limits the search."""
        return find_longest_caption(self.train)


def load_training_data(paths: Paths, settings: TrainingSettings) -> TrainingData:
    """Loads the captions and the feature maps. If there are no maps and the decoder needs none,
    loads the pooled features. Raises FileNotFoundError if there are neither."""
    dataset, descriptions = load_with_descriptions(paths.dataset, paths.descriptions)
    if maps := FeatureStore(paths.feature_maps):
        augmented_maps = {
            augmentation: store
            for augmentation in AUGMENTATIONS
            if (store := FeatureStore(paths.augmented_feature_maps(augmentation.name)))
        }
        return TrainingData.from_dataset(dataset, descriptions, maps, augmented_maps)
    if settings.uses_pooled_features and (features := load_pooled_features(paths)):
        encoder_id = encoder_id_of(features)
        encoder_path = paths.models / ENCODER
        if not encoder_id and network_exists(encoder_path):  # features.p does not name its encoder
            encoder_id = read_encoder_id(read_network(encoder_path))
        return TrainingData.from_dataset(dataset, descriptions, features, encoder_id=encoder_id)
    step = "features --pooled" if settings.uses_pooled_features else "features"
    raise FileNotFoundError(
        f"Expected feature maps in {paths.feature_maps}, got none. Extract the features: "
        f"`captioning {step}`."
    )


def load_lazily(paths: Paths, settings: TrainingSettings) -> TrainingData:
    """Loads the captions, with features that the encoder in `paths.models` computes when they are
    read: see `TrainingData.with_lazy_features`. Raises UserError for the merge
    decoder, which needs no feature maps."""
    if settings.uses_pooled_features:
        raise UserError(
            f'Expected a decoder that needs feature maps, got "{settings.decoder}". Its features '
            "are small: extract them with `captioning features --pooled`."
        )
    dataset, descriptions = load_with_descriptions(paths.dataset, paths.descriptions)
    data = TrainingData.from_dataset(dataset, descriptions, features={})
    with first_process_first():  # it writes the encoder and the maps of the development images
        encoder = provide_encoder(paths.models)
        return data.with_lazy_features(encoder, dataset.images, paths.development_feature_maps)


def identify_run(data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings) -> dict:
    """Returns the identity of a training run in JSON types: equal runs have equal identities."""
    identity = {
        "settings": training_settings(settings),
        "vocabulary": vocabulary.fingerprint,
        "captions": data.fingerprint,
        "augmentations": len(data.augmented_features),
        "augmentation names": sorted(augmentation.name for augmentation in data.augmented_features),
    }
    if data.encoder_id:
        identity["encoder"] = without_precision(data.encoder_id)
    return identity


def training_settings(settings: TrainingSettings) -> dict:
    """Returns name -> value of the settings in the identity of a training run: all but those of
    fine-tuning, which it does not use."""
    return {name: value for name, value in asdict(settings).items() if "fine_tun" not in name}


def find_longest_caption(descriptions: Captions) -> int:
    """Returns the length of the longest cleaned caption in words."""
    return max(len(caption.split()) for caption in chain.from_iterable(descriptions.values()))


def _pool(features: Features, image_names: Iterable[str]) -> Features:
    """Returns image name -> map of one cell (1, feature_width), in float32 if it is computed, of
    the images that have features."""
    if next(iter(features.values())).shape[:-1] == (1,):
        return features
    return {
        image_name: np.atleast_2d(features[image_name]).mean(axis=0, dtype="float32", keepdims=True)
        for image_name in image_names
        if image_name in features
    }
