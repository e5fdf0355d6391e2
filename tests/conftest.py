import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from pathlib import Path

import keras
import numpy as np
import pytest
from tiny_world import write_archives

from captioning.data.dataset import select
from captioning.data.flickr8k import download_flickr8k
from captioning.data.formats import read_dataset
from captioning.data.vocabulary import clean_captions
from captioning.export.keras_to_openvino import export_encoder
from captioning.inference.extract_features import extract_feature_maps, pool_features
from captioning.inference.networks import Encoder
from captioning.paths import Paths
from captioning.settings import TrainingSettings
from captioning.training.train import train_and_export
from captioning.training.training_data import TrainingData

SHARED = Path(__file__).parents[2] / "shared"
REAL = ("flickr8k/Flickr8k_Dataset.zip", "flickr8k/Flickr8k_text.zip", "xception/*.h5")


@pytest.fixture(scope="module", autouse=True)
def free_keras_models():
    """The graphs of all modules together would take some gigabytes."""
    yield
    keras.backend.clear_session()
    gc.collect()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights, for tests marked `real`."""
    return SHARED


def pytest_collection_modifyitems(items):
    missing = [f"../shared/{name}" for name in REAL if not any(SHARED.glob(name))]
    for item in items:
        if missing and "real" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))


@pytest.fixture
def archives(tmp_path) -> Path:
    """A folder that holds the tiny world's two archives."""
    folder = tmp_path / "archives"
    folder.mkdir()
    write_archives(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_settings() -> TrainingSettings:
    return TrainingSettings(
        min_word_count=1, embedding_units=32, units=32, heads=2, dropout=0.0, label_smoothing=0.0,
        batch_size=4, epochs=24, learning_rate=0.01, patience=20, self_critical_epochs=1,
        self_critical_dropout=0.0, samples=3, members=1, student=False,
    )  # fmt: skip


def build_tiny_encoder() -> keras.Model:
    """What a camera of 4 x 6 pixels sees: images (batch, 32, 48, 3) uint8 to feature maps (batch,
    4, 18) float32, a cell for each line of pixels. Circles and squares differ in their corners."""
    images = keras.Input((32, 48, 3), dtype="uint8", name="images")
    scaled = keras.layers.Rescaling(-4 / 255, offset=4)(images)  # white is 0
    pixels = keras.layers.AveragePooling2D(8)(scaled)
    return keras.Model(images, keras.layers.Reshape((4, 18))(pixels), name="encoder")


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory, tiny_settings) -> Path:
    """A root folder after all steps: data, encoder, features and a model trained for seconds."""
    files = Paths(tmp_path_factory.mktemp("tiny_root"))
    archives = tmp_path_factory.mktemp("archives")
    write_archives(archives)
    download_flickr8k(files, archives)
    export_encoder(build_tiny_encoder(), files.models)
    dataset = read_dataset([files.texts], files.images)
    captions = dataset.captions
    maps = extract_feature_maps(
        Encoder(files.models), dataset.images, list(captions), files.feature_maps
    )
    pool_features(maps, files.features)
    train_and_export(
        clean_captions(captions), captions, dataset.splits, maps, {}, tiny_settings, files
    )
    return files.root


@pytest.fixture(scope="session")
def tiny_data(tiny_root) -> TrainingData:
    files = Paths(tiny_root)
    dataset = read_dataset([files.texts], files.images)
    captions, splits = dataset.captions, dataset.splits
    random = np.random.default_rng(0)
    return TrainingData(
        train=clean_captions(select(captions, splits["train"])),
        development=clean_captions(select(captions, splits["development"])),
        references=select(captions, splits["development"]),
        features={name: random.random((3, 7), dtype="float32") for name in captions},
    )
