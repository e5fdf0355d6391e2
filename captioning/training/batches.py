"""Batches for `model.fit`: the feature maps of some images and all captions of these images.

The model scores every position of a caption in one pass (teacher forcing): the same examples and
the same loss as one prefix a row, without writing the prefixes out. The captions of an image share
a row, so that the model processes the image once for all of them. Works on ids and arrays; reads no
files.
"""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from captioning.data.vocabulary import PADDING

# Images are sorted by their longest caption within groups of so many batches: enough that a batch
# holds captions of nearly one length, few enough that no two epochs hold the same batches.
_BATCHES_PER_GROUP = 16

# With two workers or more, Keras draws the batches in threads of its own. With one, TensorFlow's
# tf.data draws them, whose autotuner sleeps for up to a minute at the end of every epoch. Drawing
# a batch takes a fraction of a step, so a short queue is enough. A batch of the attention model
# takes 13 MB, and up to 62 more with soft targets.
_WORKERS = 2
_MAX_QUEUE_SIZE = 2

EncodedCaptions = Mapping[str, Sequence[Sequence[int]]]  # of each image: see `Vocabulary.encode`
Features = Mapping[str, np.ndarray]  # of each image: its feature map (cells, feature_width)
Variant = tuple[EncodedCaptions, Features]  # the images as they are, or all of them augmented


class CaptionBatches(keras.utils.PyDataset):
    """Batches of images with all their captions, reshuffled every epoch.

    Item: `({"features": (images, cells, feature_width) as stored, "words": (images, captions,
    length) int32}, targets (images, captions * length) int32, weights (images, captions * length)
    float32)`. `words` runs from START to the last word, `targets` from the first word to END.
    `captions` is the largest number that any image has, `length` that of the longest caption in
    the batch.

    Weights are 0 on padding and equal everywhere else, in all batches, such that they sum to 1 in
    the average batch; the loss has to sum over positions. With a mean over each batch, a word would
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
        """`variants` of the same images, such as plain and flipped: each epoch draws one for every
        image. The order depends on `seed` and `epoch` only, so a run that stopped before epoch n
        resumes with `epoch=n`. Raises ValueError if an image has no features."""
        super().__init__(workers=_WORKERS, max_queue_size=_MAX_QUEUE_SIZE)
        for captions, features in variants:
            _require_features(captions, features)
        self.variants = variants
        captions, _ = variants[0]
        self._image_names = list(captions)
        self._most_captions = max(map(len, captions.values()))
        self._lengths = np.array([max(map(len, ids)) - 1 for ids in captions.values()])
        self._batch_size = batch_size
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
        features = np.stack([self.variants[variant][1][name] for name, variant in drawn])
        captions = [self.variants[variant][0][name] for name, variant in drawn]
        words, targets = pad(captions, self._most_captions)
        weights = np.float32(self._word_weight) * (targets != PADDING)
        return {"features": features, "words": words}, targets, weights

    def images_in(self, index: int) -> list[tuple[str, int]]:
        """The name of each image in a batch, and the number of the variant that was drawn."""
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
            batches += np.split(group, range(self._batch_size, len(group), self._batch_size))
        batches = [batches[index] for index in random.permutation(len(batches))]
        # Keras takes every size that is equal in the first two batches for fixed: so one of the
        # longest batches comes first and one of the shortest second.
        by_length = sorted(
            range(len(batches)), key=lambda index: self._lengths[batches[index]].max()
        )
        first = list(dict.fromkeys([by_length[-1], by_length[0]]))
        self._batches = [batches[index] for index in first] + [
            batch for index, batch in enumerate(batches) if index not in first
        ]


def one_caption_per_row(variant: Variant) -> Variant:
    """Gives every caption a row of its own, so that captions of one length meet in a batch: a
    quarter less padding, for decoders to which an image costs next to nothing."""
    captions, features = variant
    rows = {
        f"{image_name}#{number}": (image_name, ids)
        for image_name, image_captions in captions.items()
        for number, ids in enumerate(image_captions)
    }
    return (
        {row: [ids] for row, (_, ids) in rows.items()},
        {row: features[name] for row, (name, _) in rows.items() if name in features},
    )


def pad(
    captions: Sequence[Sequence[Sequence[int]]], most_captions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Encoded captions of some images -> `words` (images, most_captions, length) int32, which the
    model reads, and `targets` (images, most_captions * length) int32, the word after each."""
    length = max(len(ids) for image_captions in captions for ids in image_captions) - 1
    words = np.full((len(captions), most_captions, length), PADDING, "int32")
    targets = np.full_like(words, PADDING)
    for image, image_captions in enumerate(captions):
        for caption, ids in enumerate(image_captions):
            words[image, caption, : len(ids) - 1] = ids[:-1]
            targets[image, caption, : len(ids) - 1] = ids[1:]
    return words, targets.reshape(len(captions), -1)


def _require_features(captions: EncodedCaptions, features: Features) -> None:
    missing = [image_name for image_name in captions if image_name not in features]
    if missing:
        raise ValueError(
            f"Expected features of every captioned image, got none of {len(missing)}, among them "
            f"{missing[0]}. Extract the features of all images first."
        )
