"""Photographs, captions and features to measure with: Flickr8k's, or made of the same shape.

What is made: photographs of 500 x 375 pixels, cut from those in `examples/`; captions with the
lengths and the number of different words of Flickr8k's training captions, words drawn by Zipf's
law; features at random. The work is the same; what is said of it makes no sense.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from captioning.data.vocabulary import Vocabulary
from captioning.files import load_pickle
from captioning.paths import Paths

IMAGES = 6000  # training images of Flickr8k, each with five captions
FEATURE_WIDTH = 2048
WORDS = {1: 7371, 5: 2534}  # different ones that its training captions have once, or five times
# Of the 30,000 training captions, how many have 2, 3, ... words.
LENGTHS = (
    15, 125, 340, 854, 1948, 2501, 2917, 3318, 3310, 3134, 2772, 2332, 1864, 1339, 979, 683, 518,
    369, 213, 138, 105, 80, 51, 36, 19, 10, 9, 8, 5, 3, 2, 2, 0, 0, 0, 1,
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """`captions`: image name -> encoded captions (see `Vocabulary.encode`); `features`: image name
    -> (feature_width,) float32, the averages of its feature map."""

    vocabulary: Vocabulary
    captions: Mapping[str, list[list[int]]]
    features: Mapping[str, np.ndarray]


def made_world(images: int = IMAGES, min_word_count: int = 1) -> World:
    """Of Flickr8k's shape, and the same each time."""
    random = np.random.default_rng(0)
    words = [f"word{number}" for number in range(WORDS[min_word_count])]
    vocabulary = Vocabulary(words)
    ranks = np.arange(1, len(words) + 1)
    by_zipf = 1 / ranks / (1 / ranks).sum()
    lengths = random.choice(
        np.arange(2, 2 + len(LENGTHS)), (images, 5), p=np.array(LENGTHS) / sum(LENGTHS)
    )
    drawn = iter(random.choice(words, lengths.sum(), p=by_zipf))
    captions = {
        f"{number:05}.jpg": [vocabulary.encode(" ".join(islice(drawn, length))) for length in of]
        for number, of in enumerate(lengths)
    }
    features = {name: random.random(FEATURE_WIDTH, dtype="float32") for name in captions}
    return World(vocabulary, captions, features)


def real_world(root: Path, min_word_count: int = 1) -> World:
    """The training images below a root folder in which `check` and `features` were run."""
    from captioning.data.dataset import Dataset, read_descriptions, select

    files = Paths(root)
    train = Dataset.load(files.dataset).splits["train"]
    captions = select(read_descriptions(files.descriptions), train)
    vocabulary = Vocabulary.from_captions(
        (caption for of_image in captions.values() for caption in of_image), min_word_count
    )
    features = load_pickle(files.features)
    return World(vocabulary, vocabulary.encode_captions(captions), features)


def photographs(folder: Path, count: int, root: Path | None = None) -> list[Path]:
    """So many image files: of the data set below `root`, or made in `folder`."""
    if root is not None:
        found = sorted(Paths(root).images.glob("*.jpg"))[:count]
        if len(found) < count:
            raise FileNotFoundError(
                f"Wanted: {count} images in {Paths(root).images}. Received: {len(found)}."
            )
        return found
    examples = sorted((Paths().root / "examples").glob("*.jpg"))
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        paths.append(folder / f"{number:05}.jpg")
        with Image.open(examples[number % len(examples)]) as example:
            left, top = random.random(2) / 4 * example.size  # three quarters of it, from somewhere
            box = (left, top, left + 0.75 * example.width, top + 0.75 * example.height)
            part = example.convert("RGB").resize((500, 375), box=box)
            part.save(paths[-1], quality=90)
    return paths
