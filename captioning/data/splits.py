"""Divides images into training, development and test split as far as no caption file does.

The draw depends on the name of each image alone. It can be repeated anywhere, hardly an image
changes its split when others are added, and all captions of an image stay together.
"""

import hashlib
from collections.abc import Mapping, Sequence

from captioning.data.dataset import Splits
from captioning.settings import SPLITS, SplitSettings

# The field's names for them. Karpathy's "restval" are validation images of COCO used for training.
_SYNONYMS = {
    "train": ("train", "training", "restval"),
    "development": ("development", "dev", "val", "valid", "validation"),
    "test": ("test", "testing"),
}
_SPLIT_OF_WORD = {word: split for split, words in _SYNONYMS.items() for word in words}


def parse_split(word: str) -> str | None:
    """The split that the field calls `word`, in upper or lower case; None for any other word."""
    return _SPLIT_OF_WORD.get(word.strip().lower())


def complete_splits(
    named: Mapping[str, Sequence[str]],
    image_names: Sequence[str],
    shares: SplitSettings = SplitSettings(),
) -> Splits:
    """All three splits: those in `named`, and the missing ones drawn from the training images. If
    no split is named, all `image_names` are training images.

    A draw takes about its share of the training images: one at least, a third at most. Raises
    ValueError if there are too few to draw from.
    """
    splits = {split: list(names) for split, names in named.items()} or {"train": [*image_names]}
    missing = [split for split in ("test", "development") if split not in splits]
    training_images = len(splits.get("train", ()))
    if training_images <= len(missing):
        raise ValueError(
            f"Expected {len(missing) + 1} training images or more, one to train on and one for "
            f"each split to be drawn ({', '.join(missing) or 'none'}), got {training_images}. Add "
            "captioned images, or move some to the training split."
        )
    for split in missing:
        drawn = _draw(splits["train"], split, getattr(shares, split))
        splits[split] = [name for name in splits["train"] if name in drawn]
        splits["train"] = [name for name in splits["train"] if name not in drawn]
    return {split: splits[split] for split in SPLITS}


def _draw(image_names: Sequence[str], split: str, share: float) -> set[str]:
    numbers = {name: _pseudo_random(name, split) for name in image_names}
    ranked = sorted(numbers, key=numbers.get)
    count = sum(number < share for number in numbers.values())
    return set(ranked[: max(1, min(count, len(ranked) // 3))])


def _pseudo_random(image_name: str, split: str) -> float:
    """A number from 0 to 1 that is the same on every machine."""
    digest = hashlib.sha256(f"{split} {image_name}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
