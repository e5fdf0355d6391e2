"""The data to measure with: photographs, captions and features in the shape of Flickr8k's.

Generated photographs have Flickr8k's usual size and are cut from `examples/`. The captions have the
lengths and the vocabulary size of Flickr8k's training captions, but their words are drawn by Zipf's
law and make no sense. The features are random. Training on them is as much work as on Flickr8k.
"""

from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.measure import CHECKOUT
from captioning.data.vocabulary import Vocabulary

IMAGES = 6000  # training images of Flickr8k, with five captions each
FEATURE_WIDTH = 2048
UNITS = 256  # of the merge model's LSTM, embedding and decoder, on both sides
CAPTION_LENGTH = 11  # words, Flickr8k's mean; random weights would hardly ever end a caption
# Minimum count -> how many words reach it in Flickr8k's training captions.
VOCABULARY_SIZES = {5: 2534, 1: 7371}
# Of the 30,000 training captions, how many have 2, 3, ... words.
_LENGTHS = (
    15, 125, 340, 854, 1948, 2501, 2917, 3318, 3310, 3134, 2772, 2332, 1864, 1339, 979, 683, 518,
    369, 213, 138, 105, 80, 51, 36, 19, 10, 9, 8, 5, 3, 2, 2, 0, 0, 0, 1,
)  # fmt: skip


def make_vocabulary(words: int = VOCABULARY_SIZES[1]) -> Vocabulary:
    """A vocabulary of that many words; the reserved ids are not counted."""
    return Vocabulary(f"word{number}" for number in range(words))


def make_training_set(
    words: int, images: int
) -> tuple[Vocabulary, dict[str, list[list[int]]], dict[str, np.ndarray]]:
    """Makes the same training set each time: `make_vocabulary(words)`, image name -> encoded
    captions, and image name -> pooled features, float32 (FEATURE_WIDTH,)."""
    random = np.random.default_rng(0)
    vocabulary = make_vocabulary(words)
    zipf = 1 / np.arange(1, words + 1)
    lengths = random.choice(
        np.arange(2, 2 + len(_LENGTHS)), (images, 5), p=np.array(_LENGTHS) / sum(_LENGTHS)
    )
    drawn = (f"word{number}" for number in random.choice(words, lengths.sum(), p=zipf / zipf.sum()))
    captions = {
        f"{number:05}.jpg": [vocabulary.encode(" ".join(islice(drawn, n))) for n in caption_lengths]
        for number, caption_lengths in enumerate(lengths)
    }
    features = {name: random.random(FEATURE_WIDTH, dtype="float32") for name in captions}
    return vocabulary, captions, features


def provide_photographs(
    folder: Path, count: int, source: Path | None = None, size: tuple[int, int] = (500, 375)
) -> list[Path]:
    """`count` image files: the first ones in the folder `source`, or photographs of `size` (width
    and height in pixels) generated in `folder`. Raises FileNotFoundError if `source` has fewer."""
    if source:
        paths = sorted(source.glob("*.jpg"))[:count]
        if len(paths) < count:
            raise FileNotFoundError(
                f"Expected {count} JPEG files in {source}, got {len(paths)}. Name another folder."
            )
        return paths
    from PIL import Image

    examples = sorted((CHECKOUT / "examples").glob("*.jpg"))
    random = np.random.default_rng(0)
    paths = [folder / f"{number:05}.jpg" for number in range(count)]
    folder.mkdir(exist_ok=True)
    for number, path in enumerate(paths):
        with Image.open(examples[number % len(examples)]) as example:
            left, top = random.random(2) / 4 * example.size  # three quarters of it, from anywhere
            box = (left, top, left + 0.75 * example.width, top + 0.75 * example.height)
            example.convert("RGB").resize(size, box=box).save(path, quality=90)
    return paths
