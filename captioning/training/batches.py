"""Training batches: feature maps and caption ids in, what `model.fit` wants out.

Every position of a caption is scored in one pass (teacher forcing): the same examples and the same
loss as one prefix a row, without writing the prefixes out. The captions of an image share a row,
so that the image is looked at once for all of them. Knows nothing of files or words.
"""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from captioning.data.vocabulary import PADDING

# Images are sorted by their longest caption within groups of this many batches: long enough that a
# batch holds captions of nearly one length, short enough that no two epochs hold the same batches.
_BATCHES_A_GROUP = 16

# With two workers or more, Keras draws batches by threads of its own. With one it leaves that to
# tf.data, if TensorFlow is behind it, whose autotuner sleeps for up to a minute, and is waited for
# at the end of every epoch. To draw a batch takes a fraction of a step, so few need to wait: of the
# attention model each has 13 MB, and up to 62 more with a teacher's opinions as targets.
_WORKERS = 2
_MAX_QUEUE_SIZE = 2

EncodedCaptions = Mapping[str, Sequence[Sequence[int]]]
Features = Mapping[str, np.ndarray]
AugmentedData = Sequence[tuple[EncodedCaptions, Features]]


class CaptionBatches(keras.utils.PyDataset):
    """Batches of images with all their captions, shuffled anew for every epoch.

    Item: `({"features": (images, cells, width) as they are stored, "words": (images, captions,
    length) int32}, targets (images, captions, length) int32, weights (images, captions, length)
    float32)`. `words` runs from START to the last word, `targets` from the first word to END.
    `captions` is the most that any image has, `length` that of the longest caption in the batch.

    Weights are 0 on padding and the same everywhere else, in all batches, such that they sum to 1
    in the average batch: made for a loss that sums. A mean over each batch would let a word weigh
    more among short captions than among long ones, and teach the model to end too soon.
    """

    def __init__(
        self,
        views: AugmentedData,
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        batches_a_group: int = _BATCHES_A_GROUP,
    ):
        """`views`: ways to see the same images, such as plain and mirrored, of which each epoch
        draws one an image: image name -> encoded captions (see `Vocabulary.encode`), and image
        name -> feature map (cells, width). The order depends on `seed` and `epoch` only, so a run
        that was stopped before epoch n goes on with `epoch=n`. Images are sorted by length within
        groups of `batches_a_group`. Raises ValueError if an image has no features."""
        super().__init__(workers=_WORKERS, max_queue_size=_MAX_QUEUE_SIZE)
        for captions, features in views:
            _require_features(captions, features)
        self._views = views
        self._image_names = list(views[0][0])
        captions = views[0][0].values()
        self._most_captions = max(map(len, captions))
        self._lengths = np.array([max(map(len, of_image)) - 1 for of_image in captions])
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = epoch
        self._group_size = batches_a_group * batch_size
        self._deal()
        words = sum(len(ids) - 1 for of_image in captions for ids in of_image)
        self._word_weight = len(self._batches) / words

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def views(self) -> AugmentedData:
        """As they were given."""
        return self._views

    def images_of(self, index: int) -> list[tuple[str, int]]:
        """The name of each image of a batch, and the number of the view that it is seen in."""
        return [(self._image_names[image], self._view_of[image]) for image in self._batches[index]]

    def __getitem__(self, index: int):
        chosen = self.images_of(index)
        captions = [self._views[view][0][name] for name, view in chosen]
        features = np.stack([self._views[view][1][name] for name, view in chosen])
        words, targets = pad(captions, self._most_captions)
        weights = np.float32(self._word_weight) * (targets != PADDING)
        return {"features": features, "words": words}, targets, weights

    def on_epoch_end(self) -> None:
        self._epoch += 1
        self._deal()

    def _deal(self) -> None:
        """Draws the epoch's views, and its batches of image numbers."""
        random = np.random.default_rng([self._seed, self._epoch])
        self._view_of = random.integers(len(self._views), size=len(self._image_names))
        order = random.permutation(len(self._image_names))
        batches = []
        for start in range(0, len(order), self._group_size):
            group = order[start : start + self._group_size]
            group = group[np.argsort(self._lengths[group], kind="stable")]
            batches += np.split(group, range(self._batch_size, len(group), self._batch_size))
        batches = [batches[index] for index in random.permutation(len(batches))]
        # Keras looks at the first two batches, and takes what is equal in both for fixed: so one of
        # the longest comes first and one of the shortest second, wherever lengths differ at all.
        by_length = sorted(
            range(len(batches)), key=lambda index: self._lengths[batches[index]].max()
        )
        first = list(dict.fromkeys([by_length[-1], by_length[0]]))
        self._batches = [batches[index] for index in first] + [
            batch for index, batch in enumerate(batches) if index not in first
        ]


def one_caption_a_row(view: tuple[EncodedCaptions, Features]) -> tuple[EncodedCaptions, Features]:
    """Every caption of a view as if it had an image of its own, so that captions of one length meet
    in a batch: a quarter less padding, for decoders to which an image costs next to nothing."""
    captions, features = view
    images = {f"{name}#{n}": name for name, of in captions.items() for n in range(len(of))}
    alone = (caption for of_image in captions.values() for caption in of_image)
    return (
        {row: [caption] for row, caption in zip(images, alone, strict=True)},
        {row: features[name] for row, name in images.items() if name in features},
    )


def pad(
    captions: Sequence[Sequence[Sequence[int]]], most_captions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Encoded captions of some images -> words and targets, each (images, most_captions, length)
    int32: what is read, from START on, and what is to be said after each word, to END."""
    length = max(len(ids) for of_image in captions for ids in of_image) - 1
    words = np.full((len(captions), most_captions, length), PADDING, "int32")
    targets = np.full_like(words, PADDING)
    for image, of_image in enumerate(captions):
        for caption, ids in enumerate(of_image):
            words[image, caption, : len(ids) - 1] = ids[:-1]
            targets[image, caption, : len(ids) - 1] = ids[1:]
    return words, targets


def _require_features(captions: EncodedCaptions, features: Features) -> None:
    missing = [image_name for image_name in captions if image_name not in features]
    if missing:
        raise ValueError(
            f"Every captioned image needs features. {len(missing)} have none, among them "
            f"{missing[0]}. Extract the features of all images first."
        )
