"""Makes batches for `model.fit`: the feature maps of some images, and all their captions.

The model scores every position of a caption in one pass (teacher forcing). The loss is the same as
that of a row for each prefix of the caption. The captions of an image share a row, so that the
model processes the image once for all of them. This module works on ids and arrays, and reads no
files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from captioning.data.vocabulary import PADDING
from captioning.errors import UserError

# Images are sorted by their longest caption within groups of this many batches: enough that the
# captions of a batch have similar lengths, and few enough that every epoch has other batches.
_BATCHES_PER_GROUP = 16

# With two or more workers, Keras draws the batches in its own threads and, on TensorFlow, turns off
# the autotuner of tf.data, which sleeps for up to a minute at the end of every epoch. Drawing a
# batch takes a fraction of a training step, so a short queue is enough. A batch of the attention
# model takes 13 MB, and soft targets take up to 62 MB more.
_WORKERS = 2
_MAX_QUEUE_SIZE = 2

EncodedCaptions = Mapping[str, Sequence[Sequence[int]]]  # by image name: see `Vocabulary.encode`
Features = Mapping[str, np.ndarray]  # by image name: feature maps (cells, feature_width)


class Variant(NamedTuple):
    """Captions and features of all images, plain or with one augmentation. Variants with the same
    `is_flipped` have equal captions."""

    captions: EncodedCaptions
    features: Features
    is_flipped: bool = False


class CaptionBatches(keras.utils.PyDataset):
    """Batches of images with all their captions, shuffled again for every epoch.

    An item is `({"features": (images, cells, feature_width) as stored, "words": (images, captions,
    length) int32}, targets (images, captions * length) int32, weights (images, captions * length)
    float32)`. `words` run from START to the last word, `targets` from the first word to END.
    `captions` is the largest number of captions of any image, `length` the length of the longest
    caption in the batch.

    Weights are 0 on padding. Elsewhere they are equal in all batches, such that they sum to 1 in
    the average batch; the loss must sum over positions. With a mean over each batch, a word would
    weigh more among short captions than among long ones, and the model would learn to end too soon.
    """

    def __init__(
        self,
        variants: Sequence[Variant],
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        batches_per_group: int = _BATCHES_PER_GROUP,
    ):
        """`variants` hold the same images, such as plain and flipped. Each epoch draws a variant of
        every image. The order depends only on `seed` and `epoch`, so a run that stopped before
        epoch n resumes with `epoch=n`. Raises UserError if an image has no features."""
        super().__init__(workers=_WORKERS, max_queue_size=_MAX_QUEUE_SIZE)
        for variant in variants:
            require_features(variant.captions, variant.features)
        self.variants = variants
        captions = variants[0].captions
        self._image_names = list(captions)
        self._max_captions = max(map(len, captions.values()))
        self._lengths = np.array([max(map(len, ids)) - 1 for ids in captions.values()])
        self.batch_size = batch_size
        self._seed = seed
        self._epoch = epoch
        self._group_size = batches_per_group * batch_size
        self._shuffle()
        words = sum(len(ids) - 1 for image_captions in captions.values() for ids in image_captions)
        self._word_weight = len(self._batches) / words

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int):
        drawn = self.images_in(index)
        features = np.stack([self.variants[variant].features[name] for name, variant in drawn])
        captions = [self.variants[variant].captions[name] for name, variant in drawn]
        words, targets = pad(captions, self._max_captions)
        weights = np.float32(self._word_weight) * (targets != PADDING)
        return {"features": features, "words": words}, targets, weights

    def images_in(self, index: int) -> list[tuple[str, int]]:
        """Returns the name of each image in a batch, and the number of its variant."""
        return [(self._image_names[image], self._drawn[image]) for image in self._batches[index]]

    def on_epoch_end(self) -> None:
        self._epoch += 1
        self._shuffle()

    def _shuffle(self) -> None:
        """Draws the variant of each image and the batches of the epoch."""
        random = np.random.default_rng([self._seed, self._epoch])
        self._drawn = random.integers(len(self.variants), size=len(self._image_names))
        order = random.permutation(len(self._image_names))
        batches = []
        for start in range(0, len(order), self._group_size):
            group = order[start : start + self._group_size]
            group = group[np.argsort(self._lengths[group], kind="stable")]
            batches += np.split(group, range(self.batch_size, len(group), self.batch_size))
        batches = [batches[index] for index in random.permutation(len(batches))]
        # Keras assumes that a size that is equal in the first two batches never changes. Therefore
        # one of the longest batches comes first, and one of the shortest second.
        by_length = sorted(
            range(len(batches)), key=lambda index: self._lengths[batches[index]].max()
        )
        first = list(dict.fromkeys([by_length[-1], by_length[0]]))
        self._batches = [batches[index] for index in first] + [
            batch for index, batch in enumerate(batches) if index not in first
        ]


def separate_captions(variant: Variant) -> Variant:
    """Gives every caption a row of its own, "image.jpg#0". Batches of such rows have a quarter less
    padding, since their captions have similar lengths. Repeating the image costs little for a
    decoder that uses pooled features."""
    captions, features, is_flipped = variant
    return Variant(
        _Rows(captions, lambda image_name, number: [captions[image_name][number]]),
        _Rows(captions, lambda image_name, _: features[image_name]),
        is_flipped,
    )


class _Rows(Mapping):
    """A row for each caption -> a value, which is looked up when it is read: a million rows take
    only the memory of their image names."""

    def __init__(self, captions: EncodedCaptions, look_up: Callable[[str, int], Any]):
        """`look_up` returns the value of an image name and the number of a caption."""
        self._captions = captions
        self._look_up = look_up

    def __getitem__(self, row: str) -> Any:
        image_name, _, number = row.rpartition("#")
        return self._look_up(image_name, int(number))

    def __iter__(self) -> Iterator[str]:
        for image_name, image_captions in self._captions.items():
            for number in range(len(image_captions)):
                yield f"{image_name}#{number}"

    def __len__(self) -> int:
        return sum(map(len, self._captions.values()))


def pad(
    captions: Sequence[Sequence[Sequence[int]]], max_captions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pads the encoded captions of some images. Returns `words` (images, max_captions, length)
    int32, which the model reads, and `targets` (images, max_captions * length) int32, the word
    after each."""
    length = max(len(ids) for image_captions in captions for ids in image_captions) - 1
    words = np.full((len(captions), max_captions, length), PADDING, "int32")
    targets = np.full_like(words, PADDING)
    for image, image_captions in enumerate(captions):
        for caption, ids in enumerate(image_captions):
            words[image, caption, : len(ids) - 1] = ids[:-1]
            targets[image, caption, : len(ids) - 1] = ids[1:]
    return words, targets.reshape(len(captions), -1)


def require_features(captions: EncodedCaptions, features: Features) -> None:
    """Raises UserError if an image with captions has no features."""
    missing = [image_name for image_name in captions if image_name not in features]
    if missing:
        raise UserError(
            f"Expected features of all {len(captions)} captioned images, got none of "
            f"{len(missing)}, such as {missing[0]}. Extract the features of all images first."
        )
