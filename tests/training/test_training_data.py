from pathlib import Path

import numpy as np

from captioning.data.augmentation import AUGMENTATIONS, HORIZONTAL_FLIP
from captioning.data.dataset import Dataset
from captioning.data.feature_store import FeatureStore
from captioning.data.vocabulary import Vocabulary
from captioning.settings import TrainingSettings
from captioning.training.training_data import TrainingData, identify_run

CAPTIONS = {"dog.jpg": ["a dog on the left"]}


def test_an_augmentation_has_other_features_and_captions():
    plain, flipped = {"dog.jpg": np.zeros((1, 2))}, {"dog.jpg": np.ones((1, 2))}
    vocabulary = Vocabulary(["a", "dog", "on", "the", "left", "right"])
    data = TrainingData(CAPTIONS, CAPTIONS, CAPTIONS, plain, {HORIZONTAL_FLIP: flipped})
    plain_variant, flipped_variant = data.encode(vocabulary)
    assert vocabulary.decode(plain_variant.captions["dog.jpg"][0][1:]) == "a dog on the left"
    assert vocabulary.decode(flipped_variant.captions["dog.jpg"][0][1:]) == "a dog on the right"
    assert (plain_variant.features, flipped_variant.features) == (plain, flipped)
    assert (plain_variant.is_flipped, flipped_variant.is_flipped) == (False, True)
    assert len(TrainingData(CAPTIONS, CAPTIONS, CAPTIONS, plain).encode(vocabulary)) == 1


def test_variants_with_equal_captions_share_them():
    features = {"dog.jpg": np.zeros((1, 2))}
    augmented = dict.fromkeys(AUGMENTATIONS, features)
    data = TrainingData(CAPTIONS, CAPTIONS, CAPTIONS, features, augmented)
    plain, flipped, cropped, cropped_flipped = (
        variant.captions for variant in data.encode(Vocabulary(["a", "dog"]))
    )
    assert plain is cropped is not flipped is cropped_flipped


def test_a_pooled_map_has_one_cell_with_the_average():
    maps = {"dog.jpg": np.array([[1, 2], [3, 6]], "float16"), "unused.jpg": np.ones((2, 2))}
    flipped = {"dog.jpg": np.array([[0, 1], [0, 2]], "float16")}
    data = TrainingData(CAPTIONS, {}, {}, maps, {HORIZONTAL_FLIP: flipped}).pooled()
    assert data.features.keys() == data.augmented_features[HORIZONTAL_FLIP].keys() == {"dog.jpg"}
    assert data.features["dog.jpg"].tolist() == [[2, 4]]
    assert data.features["dog.jpg"].dtype == np.float32
    assert data.augmented_features[HORIZONTAL_FLIP]["dog.jpg"].tolist() == [[0, 1.5]]
    assert not TrainingData(CAPTIONS, {}, {}, maps).pooled().augmented_features


def test_pooled_features_become_maps_of_one_cell():
    vectors = {"dog.jpg": np.array([1, 2], "float32")}
    data = TrainingData(CAPTIONS, {}, {}, vectors)
    assert not data.has_feature_maps
    assert data.feature_width == 2
    assert data.pooled().has_feature_maps
    assert data.pooled().features["dog.jpg"].tolist() == [[1, 2]]


def test_maps_of_one_cell_are_not_pooled_again(tmp_path):
    store = FeatureStore(tmp_path / "pooled_feature_maps.bin")
    store.append("dog.jpg", np.array([[1, 2]]))
    store.save()
    data = TrainingData(CAPTIONS, {}, {}, store)
    assert data.pooled().features is store


def test_pooled_features_keep_the_encoder_that_the_caller_names():
    vectors = {"dog.jpg": np.array([1, 2], "float32")}
    splits = {"train": ["dog.jpg"], "development": [], "test": []}
    dataset = Dataset(Path("images"), CAPTIONS, splits)
    data = TrainingData.from_dataset(
        dataset, CAPTIONS, vectors, encoder_id="Xception 0123456789abcdef"
    )
    assert data.encoder_id == data.pooled().encoder_id == "Xception 0123456789abcdef"


def test_other_augmentations_make_another_run():
    features = {"dog.jpg": np.zeros((1, 2))}
    vocabulary = Vocabulary(["a", "dog"])
    flipped, cropped = (
        identify_run(
            TrainingData(CAPTIONS, CAPTIONS, CAPTIONS, features, {augmentation: features}),
            vocabulary,
            TrainingSettings(),
        )
        for augmentation in AUGMENTATIONS[:2]
    )
    assert flipped["augmentations"] == cropped["augmentations"] == 1
    assert flipped != cropped
