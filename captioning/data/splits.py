"""Which images a model learns from, is chosen on and is tested on, where a caption file leaves it
open. Image names in, splits out.

An image is drawn by a number made of its name alone. So a draw can be repeated anywhere, hardly an
image changes its split when others are added later, and all captions of an image stay together.
"""

import hashlib
from collections.abc import Mapping, Sequence

from captioning.data.dataset import Splits
from captioning.settings import SPLITS, SplitSettings

# What the field calls them. Karpathy's "restval" are validation images of COCO given to training.
_MEANINGS = {
    "train": ("train", "training", "restval"),
    "development": ("development", "dev", "val", "valid", "validation"),
    "test": ("test", "testing"),
}
_BY_WORD = {word: split for split, words in _MEANINGS.items() for word in words}


def parse_split(word: str) -> str | None:
    """The split that the field calls `word`, in any case; None if it calls none so."""
    return _BY_WORD.get(word.strip().lower())


def complete_splits(
    named: Mapping[str, Sequence[str]],
    image_names: Sequence[str],
    shares: SplitSettings = SplitSettings(),
) -> Splits:
    """All three splits: those that are `named`, and the others drawn from the training images,
    which are all `image_names` where no split is named.

    A draw takes about its share of the training images: one at least, a third at most. Raises
    ValueError if no training image is named, or if there are too few to draw from.
    """
    splits = {split: list(names) for split, names in named.items()} or {"train": [*image_names]}
    missing = [split for split in ("test", "development") if split not in splits]
    if len(splits.get("train", ())) <= len(missing):
        raise ValueError(
            f"Wanted: {len(missing) + 1} training images or more, one to learn from and one for "
            f"each split that nobody named ({', '.join(missing) or 'none'}). Received: "
            f"{len(splits.get('train', ()))}. Add captioned images, or say of more of them that "
            "they are for training."
        )
    for split in missing:
        drawn = _draw(splits["train"], split, getattr(shares, split))
        splits[split] = [name for name in splits["train"] if name in drawn]
        splits["train"] = [name for name in splits["train"] if name not in drawn]
    return {split: splits[split] for split in SPLITS}


def _draw(image_names: Sequence[str], split: str, share: float) -> set[str]:
    numbers = {name: _number(name, split) for name in image_names}
    ranked = sorted(numbers, key=numbers.get)
    count = sum(number < share for number in numbers.values())
    return set(ranked[: max(1, min(count, len(ranked) // 3))])


def _number(image_name: str, split: str) -> float:
    """From 0 to 1, as good as random, and the same on every machine."""
    digest = hashlib.sha256(f"{split} {image_name}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
