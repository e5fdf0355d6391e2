"""The work of this program; `tutorial.py` has the same work in the usual way. Many images are
captioned with a beam of three, as in version 7, so that the figures can be compared.

Only the functions that train or export import Keras: TensorFlow's threads would slow captioning
down by a fifth, and its users do not have them.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.data import CAPTION_LENGTH, FEATURE_WIDTH, UNITS, make_training_set, make_vocabulary
from benchmarks.measure import Work
from captioning.data.vocabulary import Vocabulary
from captioning.export.provide_encoder import provide_encoder
from captioning.inference.captioner import Captioner
from captioning.inference.decoder import Decoder
from captioning.inference.decoding import find_best_captions
from captioning.inference.extract_features import encode_images, extract_feature_maps
from captioning.paths import Paths, find_model
from captioning.settings import BEAM_SEARCH, SearchSettings, TrainingSettings

# Batches of 64 images train this decoder as well as those of 32, and faster: docs/findings.md.
SETTINGS = TrainingSettings(
    decoder="merge", units=UNITS, embedding_units=UNITS, batch_size=64, learning_rate=2e-3
)


def extract(paths: list[Path], model: Path | None = None) -> Work:
    """Extracts the feature maps of the photographs in a folder into a file, as `captioning
    features` does. `model`: the root folder of another model than the shipped one."""
    encoder = provide_encoder(Paths(find_model(model)).models)
    names = [path.name for path in paths]

    def work() -> int:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "maps.bin")
            return len(extract_feature_maps(encoder, paths[0].parent, names, file))

    return work


def encode(paths: list[Path]) -> Work:
    """Encodes photographs without saving their feature maps."""
    encoder = Captioner.load().encoder
    return lambda: sum(len(batch) for batch in encode_images(encoder, paths))


def caption(paths: list[Path]) -> Work:
    """Captions photographs with a beam of three."""
    captioner = Captioner.load()
    return lambda: sum(1 for _ in captioner.stream(paths, search=BEAM_SEARCH))


def search_shipped(paths: list[Path]) -> Work:
    """Searches for the captions of encoded photographs, with a beam of three."""
    captioner = Captioner.load()
    encoded = encode_images(captioner.encoder, paths)
    maps = np.stack([feature_map for batch in encoded for _, feature_map in batch])
    return lambda: len(find_best_captions(captioner.decoder, maps, BEAM_SEARCH))


def search(folder: Path, images: int, beam_width: int) -> Work:
    """Searches for captions with the decoder in `folder`. Raises ValueError if one is shorter than
    the tutorial's, because the two sides would do different work."""
    decoder = Decoder.load(folder, Vocabulary.load(folder / "words.p"))
    maps = np.random.default_rng(0).random((images, 1, FEATURE_WIDTH), dtype="float32")

    def work() -> int:
        captions = find_best_captions(decoder, maps, SearchSettings(beam_width, decoding="beam"))
        shortest = min(len(caption.text.split()) for caption in captions)
        if shortest < CAPTION_LENGTH:
            raise ValueError(f"Expected captions of {CAPTION_LENGTH} words, got {shortest}.")
        return len(captions)

    return work


def export_untrained_decoder(folder: str) -> None:
    """Writes a merge decoder of the tutorial's size, with random weights, for `search`."""
    import keras

    from captioning.export.keras_to_openvino import export_decoder
    from captioning.models.caption_model import build_caption_model

    keras.utils.set_random_seed(0)
    vocabulary = make_vocabulary()
    model = build_caption_model(len(vocabulary), FEATURE_WIDTH, SETTINGS)
    export_decoder(model, vocabulary, CAPTION_LENGTH, Path(folder))
    vocabulary.save(Path(folder, "words.p"))


def train(words: int, images: int) -> Work:
    """Trains the merge model for an epoch; scoring is left out."""
    from captioning.models.caption_model import build_caption_model
    from captioning.training.batches import Variant
    from captioning.training.cross_entropy import SmoothedCrossentropy, compile_model, make_batches
    from captioning.training.device_batches import for_devices
    from captioning.training.devices import training_precision

    vocabulary, captions, features = make_training_set(words, images)
    maps = {name: pooled[None] for name, pooled in features.items()}
    batches = make_batches([Variant(captions, maps)], SETTINGS)
    model = build_caption_model(len(vocabulary), FEATURE_WIDTH, SETTINGS, training_precision())
    compile_model(model, SETTINGS, len(batches), SmoothedCrossentropy(SETTINGS.label_smoothing))

    def work() -> int:
        model.fit(for_devices(batches), shuffle=False, verbose=0)
        return images

    return work


def export_tiny_model(root: str) -> None:
    """Writes an untrained model that takes hardly any time, for `growth.py`."""
    import keras

    from captioning.export.keras_to_openvino import export_decoder, export_encoder, make_encoder_id
    from captioning.models.caption_model import build_caption_model

    paths = Paths(Path(root))
    images = keras.Input((32, 48, 3), dtype="uint8")
    pixels = keras.layers.AveragePooling2D(8)(keras.layers.Rescaling(1 / 255)(images))
    encoder = keras.Model(images, keras.layers.Reshape((4, 18))(pixels))
    export_encoder(encoder, paths.models)
    vocabulary = make_vocabulary(50)
    settings = replace(SETTINGS, units=16, embedding_units=16)
    model = build_caption_model(len(vocabulary), 18, settings)
    export_decoder(model, vocabulary, 8, paths.models, make_encoder_id(encoder))
    vocabulary.save(paths.vocabulary)


def extract_folder(model: str, images: str) -> None:
    """Extracts the feature maps of all images in the folder `images`, for `growth.py`."""
    extract(sorted(Path(images).iterdir()), Path(model))()
