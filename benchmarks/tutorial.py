"""The usual tutorial, written anew from its description, as the other side of a comparison.

Each prefix of each caption is a row with a one-hot target, one image a training step; a caption is
said by running the whole prefix through `predict` for every word; the script builds and imports
everything at its start. `python -m benchmarks.tutorial IMAGE FOLDER` is that script.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from keras.utils import pad_sequences, to_categorical
from PIL import Image

from benchmarks.world import FEATURE_WIDTH
from captioning.data.vocabulary import END, PADDING, START, UNKNOWN, Vocabulary

UNITS = 256
IMAGE_SHAPE = (299, 299, 3)
MAX_LENGTH = 38  # of a prefix: the longest training caption of Flickr8k, its start included
XCEPTION, MODEL, WORDS = "xception.weights.h5", "model.weights.h5", "words.txt"

# Untrained weights go on to the limit; this is where captions of Flickr8k end on average.
WORDS_A_CAPTION = 11


def build_model(
    vocabulary_size: int,
    max_length: int,
    units: int = UNITS,
    feature_width: int = FEATURE_WIDTH,
) -> keras.Model:
    """Features (images, feature_width) and prefixes (images, max_length), padded on the left -> the
    probabilities of the next word (images, vocabulary_size)."""
    features = keras.Input((feature_width,))
    image = keras.layers.Dropout(0.5)(features)
    image = keras.layers.Dense(units, activation="relu", name="image")(image)
    words = keras.Input((max_length,))
    sequence = keras.layers.Embedding(vocabulary_size, units, mask_zero=True, name="words")(words)
    sequence = keras.layers.Dropout(0.5)(sequence)
    sequence = keras.layers.LSTM(units, name="lstm")(sequence)
    merged = keras.layers.add([image, sequence])
    merged = keras.layers.Dense(units, activation="relu", name="merged")(merged)
    next_word = keras.layers.Dense(vocabulary_size, activation="softmax", name="next_word")(merged)
    model = keras.Model([features, words], next_word)
    model.compile(loss="categorical_crossentropy", optimizer="adam")
    return model


def with_weights_of(caption_model: keras.Model, max_length: int) -> keras.Model:
    """The tutorial's model of the same sizes and weights as one of the program's with the merge
    decoder, so that both hold the same words for probable."""
    embedding, extractor, processor, decoder = map(
        caption_model.get_layer,
        ("embedding", "feature_extractor", "sequence_processor", "decoder"),
    )
    words, *_ = embedding.get_weights()  # (vocabulary_size, units)
    never_said = np.zeros(len(words))
    never_said[[PADDING, START, UNKNOWN]] = -1e9
    weights = {
        "words": [words * processor.get_layer("scale").scale],
        "lstm": processor.get_layer("lstm").layer.get_weights(),
        "image": extractor.get_layer("dense").get_weights(),
        "merged": decoder.get_layer("dense").get_weights(),
        "next_word": [words.T, never_said],
    }
    model = build_model(len(words), max_length, words.shape[1], extractor.input_shape[-1])
    for name, of_layer in weights.items():
        model.get_layer(name).set_weights(of_layer)
    return model


def expand(
    caption_ids: Sequence[int], max_length: int, vocabulary_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """A caption as so many rows as it has words to guess: prefixes (rows, max_length) and one-hot
    targets (rows, vocabulary_size)."""
    prefixes, targets = [], []
    for end in range(1, len(caption_ids)):
        prefixes.append(pad_sequences([caption_ids[:end]], maxlen=max_length)[0])
        targets.append(to_categorical([caption_ids[end]], num_classes=vocabulary_size)[0])
    return np.array(prefixes), np.array(targets)


def batches(
    captions: Mapping[str, Sequence[Sequence[int]]],
    features: Mapping[str, np.ndarray],
    max_length: int,
    vocabulary_size: int,
) -> Iterator[tuple]:
    """Without end, one image a batch: (features, prefixes), targets."""
    while True:
        for name, of_image in captions.items():
            rows = [expand(ids, max_length, vocabulary_size) for ids in of_image]
            prefixes, targets = (np.concatenate(part) for part in zip(*rows, strict=True))
            yield (np.repeat(features[name][None], len(prefixes), axis=0), prefixes), targets


def say(model: keras.Model, features: np.ndarray, max_length: int, longest: int) -> list[int]:
    """The most probable next word, again and again, up to `longest` of them."""
    ids = [START]
    while len(ids) <= longest:
        prefix = pad_sequences([ids], maxlen=max_length)
        (next_word,) = model.predict([features[None], prefix], verbose=0)
        if next_word.argmax() == END:
            break
        ids.append(int(next_word.argmax()))
    return ids[1:]


def build_encoder() -> keras.Model:
    """Xception, its map averaged, with random weights: those of ImageNet take as long."""
    return keras.applications.Xception(
        weights=None, include_top=False, pooling="avg", input_shape=IMAGE_SHAPE
    )


def load_image(path: Path) -> np.ndarray:
    """(1, 299, 299, 3) float32 from -1 to 1."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize(IMAGE_SHAPE[:2]), "float32")
    return pixels[None] / 127.5 - 1


def write_weights(folder: Path, vocabulary: Vocabulary, max_length: int) -> None:
    """What the script reads."""
    build_encoder().save_weights(folder / XCEPTION)
    build_model(len(vocabulary), max_length).save_weights(folder / MODEL)
    lines = [str(max_length), *vocabulary.words[UNKNOWN + 1 :]]
    (folder / WORDS).write_text("\n".join(lines), encoding="utf-8")


def main(image_path: Path, folder: Path) -> None:
    """Captions one image, from a standing start."""
    max_length, *words = (folder / WORDS).read_text(encoding="utf-8").split("\n")
    vocabulary = Vocabulary(words)
    encoder = build_encoder()
    encoder.load_weights(folder / XCEPTION)
    model = build_model(len(vocabulary), int(max_length))
    model.load_weights(folder / MODEL)
    (features,) = encoder.predict(load_image(image_path), verbose=0)
    print(vocabulary.decode(say(model, features, int(max_length), WORDS_A_CAPTION)))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
