"""The work of this program, as people use it: what `tutorial.py` is compared with.

The functions that need Keras import it themselves: beside TensorFlow's threads captioning would be
slower by a fifth, and nobody captions beside them.
"""

import os
import tempfile
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from benchmarks.data import FEATURE_WIDTH, IMAGES, VOCABULARY_SIZES, training_set
from benchmarks.measure import Work
from captioning.data.vocabulary import Vocabulary
from captioning.paths import Paths, find_model
from captioning.settings import SearchSettings, TrainingSettings

UNITS = 256  # as many as the tutorial's
WORDS_PER_CAPTION = 11  # as many as the tutorial generates
# Batches of 64 images train this decoder as well as those of 32, and faster: docs/findings.md.
SETTINGS = replace(
    TrainingSettings(),
    decoder="merge",
    units=UNITS,
    embedding_units=UNITS,
    batch_size=64,
    learning_rate=2e-3,
)


def extract(paths: list[Path]) -> Work:
    """Extracts the feature maps of photographs into a file, as the step `features` does."""
    from captioning.export.provide_encoder import provide_encoder
    from captioning.inference.extract_features import extract_feature_maps

    encoder = provide_encoder(Paths(find_model()).models)
    names = [path.name for path in paths]

    def work() -> int:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "maps.bin")
            return len(extract_feature_maps(encoder, paths[0].parent, names, file))

    return work


def encode(paths: list[Path]) -> Work:
    """Encodes photographs and keeps nothing."""
    from captioning.inference.captioner import Captioner
    from captioning.inference.extract_features import encode_images

    encoder = Captioner.load().encoder
    return lambda: sum(len(batch) for batch in encode_images(encoder, paths))


def caption(paths: list[Path]) -> Work:
    """Captions photographs with a beam of three."""
    from captioning.inference.captioner import Captioner

    captioner = Captioner.load()
    return lambda: sum(1 for _ in captioner.stream(paths))


def search_shipped(paths: list[Path]) -> Work:
    """Searches the captions of photographs whose feature maps are known, with a beam of three."""
    from captioning.inference.captioner import Captioner
    from captioning.inference.extract_features import encode_images

    captioner = Captioner.load()
    encoded = chain.from_iterable(encode_images(captioner.encoder, paths))
    maps = np.stack([features for _, features in encoded])
    return lambda: len(captioner.decoder.caption(maps))


def search(folder: Path, images: int, beam_width: int) -> Work:
    """Searches captions with the decoder in `folder`. Raises ValueError if one is shorter than the
    tutorial's: the two sides would do different work."""
    from captioning.inference.networks import Decoder

    decoder = Decoder.load(folder, Vocabulary.load(folder / "words.p"))
    maps = np.random.default_rng(0).random((images, 1, FEATURE_WIDTH), dtype="float32")

    def work() -> int:
        captions = decoder.caption(maps, SearchSettings(beam_width))
        shortest = min(len(caption.text.split()) for caption in captions)
        if shortest < WORDS_PER_CAPTION:
            raise ValueError(f"Expected captions of {WORDS_PER_CAPTION} words, got {shortest}.")
        return len(captions)

    return work


def export_untrained_decoder(folder: Path) -> None:
    """Writes a merge decoder of the tutorial's size, with random weights, for `search`."""
    import keras

    from captioning.export.keras_to_openvino import export_decoder
    from captioning.models.caption_model import build_caption_model

    keras.utils.set_random_seed(0)
    vocabulary = training_set(VOCABULARY_SIZES[1], images=1).vocabulary
    model = build_caption_model(len(vocabulary), FEATURE_WIDTH, SETTINGS)
    export_decoder(model, vocabulary, WORDS_PER_CAPTION, folder)
    vocabulary.save(folder / "words.p")


def train(vocabulary_size: int, images: int = IMAGES) -> Work:
    """Trains the merge model for an epoch; scoring is left out."""
    from captioning.inference.openvino_runtime import training_precision
    from captioning.models.caption_model import build_caption_model
    from captioning.training.cross_entropy import compile_model, make_batches
    from captioning.training.losses import SmoothedCrossentropy

    data = training_set(vocabulary_size, images)
    maps = {name: features[None] for name, features in data.features.items()}
    batches = make_batches([(data.captions, maps)], SETTINGS)
    model = build_caption_model(len(data.vocabulary), FEATURE_WIDTH, SETTINGS, training_precision())
    compile_model(model, SETTINGS, len(batches), SmoothedCrossentropy(SETTINGS.label_smoothing))

    def work() -> int:
        model.fit(batches, shuffle=False, verbose=0)
        return len(data.captions)

    return work


def export_tiny_model(paths: Paths) -> None:
    """Writes an untrained model that costs next to nothing, for `growth.py`."""
    import keras

    from captioning.export.keras_to_openvino import export_decoder, export_encoder, make_encoder_id
    from captioning.models.caption_model import build_caption_model

    images = keras.Input((32, 48, 3), dtype="uint8")
    pixels = keras.layers.AveragePooling2D(8)(keras.layers.Rescaling(1 / 255)(images))
    encoder = keras.Model(images, keras.layers.Reshape((4, 18))(pixels))
    export_encoder(encoder, paths.models)
    vocabulary = Vocabulary(f"word{number}" for number in range(50))
    model = build_caption_model(
        len(vocabulary), 18, replace(SETTINGS, units=16, embedding_units=16)
    )
    export_decoder(model, vocabulary, 8, paths.models, make_encoder_id(encoder))
    vocabulary.save(paths.vocabulary)


def extract_folder(model: str, images: str) -> None:
    """Extracts the feature maps of all images in a folder once, for `growth.py`."""
    from captioning.inference.extract_features import extract_feature_maps
    from captioning.inference.networks import Encoder

    encoder, names = Encoder(Paths(Path(model)).models), sorted(os.listdir(images))
    with tempfile.TemporaryDirectory() as folder:
        extract_feature_maps(encoder, Path(images), names, Path(folder, "maps.bin"))
