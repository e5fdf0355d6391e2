"""The data to measure with: photographs, captions and features in the shape of Flickr8k's.

Generated photographs have Flickr8k's usual size and are cut from `examples/`. The captions have the
lengths and the vocabulary of Flickr8k's training captions, with words drawn by Zipf's law, and the
features are random: the work is the same, the sentences mean nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.measure import CHECKOUT
from captioning.data.vocabulary import Vocabulary

IMAGES = 6000  # training images of Flickr8k, with five captions each
FEATURE_WIDTH = 2048
# Minimum count -> how many words reach it in Flickr8k's training captions.
VOCABULARY_SIZES = {5: 2534, 1: 7371}
# Of the 30,000 training captions, how many have 2, 3, ... words.
_LENGTHS = (
    15, 125, 340, 854, 1948, 2501, 2917, 3318, 3310, 3134, 2772, 2332, 1864, 1339, 979, 683, 518,
    369, 213, 138, 105, 80, 51, 36, 19, 10, 9, 8, 5, 3, 2, 2, 0, 0, 0, 1,
)  # fmt: skip
_PHOTOGRAPH_SIZE = (500, 375)  # pixels


@dataclass(frozen=True)
class TrainingSet:
    """`captions`: image name -> encoded captions; `features`: image name -> (FEATURE_WIDTH,)
    float32, the pooled feature map."""

    vocabulary: Vocabulary
    captions: Mapping[str, list[list[int]]]
    features: Mapping[str, np.ndarray]


def training_set(vocabulary_size: int, images: int = IMAGES) -> TrainingSet:
    """The same set each time."""
    random = np.random.default_rng(0)
    words = [f"word{number}" for number in range(vocabulary_size)]
    vocabulary = Vocabulary(words)
    zipf = 1 / np.arange(1, len(words) + 1)
    lengths = random.choice(
        np.arange(2, 2 + len(_LENGTHS)), (images, 5), p=np.array(_LENGTHS) / sum(_LENGTHS)
    )
    drawn = iter(random.choice(words, lengths.sum(), p=zipf / zipf.sum()))
    captions = {
        f"{number:05}.jpg": [vocabulary.encode(" ".join(islice(drawn, n))) for n in caption_lengths]
        for number, caption_lengths in enumerate(lengths)
    }
    features = {name: random.random(FEATURE_WIDTH, dtype="float32") for name in captions}
    return TrainingSet(vocabulary, captions, features)


def photographs(folder: Path, count: int, source: Path | None = None) -> list[Path]:
    """`count` image files: the first ones in the folder `source`, or photographs generated in
    `folder`. Raises FileNotFoundError if `source` has fewer."""
    if source is None:
        return _make_photographs(folder, count)
    found = sorted(source.glob("*.jpg"))[:count]
    if len(found) < count:
        raise FileNotFoundError(
            f"Expected {count} JPEG files in {source}, got {len(found)}. Name another folder."
        )
    return found


def _make_photographs(folder: Path, count: int) -> list[Path]:
    from PIL import Image

    examples = sorted((CHECKOUT / "examples").glob("*.jpg"))
    random = np.random.default_rng(0)
    paths = [folder / f"{number:05}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        with Image.open(examples[number % len(examples)]) as example:
            left, top = random.random(2) / 4 * example.size  # three quarters of it, from anywhere
            box = (left, top, left + 0.75 * example.width, top + 0.75 * example.height)
            example.convert("RGB").resize(_PHOTOGRAPH_SIZE, box=box).save(path, quality=90)
    return paths
