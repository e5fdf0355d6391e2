"""Training batches: image features and caption ids in, what `model.fit` wants out.

Every position of a caption is scored in one pass (teacher forcing): the same examples and the same
loss as one prefix a row, without writing the prefixes out. Knows nothing of files or words.
"""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from captioning.text import PADDING

# Captions are sorted by length within groups of this many batches: long enough that a batch holds
# captions of nearly one length, short enough that no two epochs hold the same batches.
_BATCHES_A_GROUP = 32


class CaptionBatches(keras.utils.PyDataset):
    """Batches of captions of similar length, shuffled anew for every epoch.

    Item: `({"features": (batch, width) float32, "words": (batch, length) int32},
    targets (batch, length) int32, weights (batch, length) float32)`. `words` runs from START to the
    last word, `targets` from the first word to END. `length` is that of the longest caption in the
    batch.

    Weights are 0 on padding and the same everywhere else, in all batches, such that they sum to 1
    in the average batch: made for a loss that sums. A mean over each batch would let a word weigh
    more among short captions than among long ones, and teach the model to end too soon.
    """

    def __init__(
        self,
        captions: Mapping[str, Sequence[Sequence[int]]],
        features: Mapping[str, np.ndarray],
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        **kwargs,
    ):
        """`captions`: image name -> encoded captions (see `Vocabulary.encode`); `features`: image
        name -> features. The order depends on `seed` and `epoch` only, so a run that was stopped
        before epoch n goes on with `epoch=n`. Raises ValueError if an image has no features."""
        super().__init__(**kwargs)
        missing = [image_name for image_name in captions if image_name not in features]
        if missing:
            raise ValueError(
                f"Every captioned image needs features. {len(missing)} have none, among them "
                f"{missing[0]}. Extract the features of all images first."
            )
        self._features = np.stack([features[image_name] for image_name in captions])
        self._captions = [ids for image_ids in captions.values() for ids in image_ids]
        self._rows = np.repeat(
            np.arange(len(captions)), [len(image_ids) for image_ids in captions.values()]
        )
        self._lengths = np.array([len(ids) - 1 for ids in self._captions])
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = epoch
        self._batches = self._deal()
        self._word_weight = len(self._batches) / self._lengths.sum()

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int):
        chosen = self._batches[index]
        length = self._lengths[chosen].max()
        words = np.full((len(chosen), length), PADDING, "int32")
        targets = np.full((len(chosen), length), PADDING, "int32")
        for row, caption in enumerate(chosen):
            ids = self._captions[caption]
            words[row, : len(ids) - 1] = ids[:-1]
            targets[row, : len(ids) - 1] = ids[1:]
        weights = np.float32(self._word_weight) * (targets != PADDING)
        return {"features": self._features[self._rows[chosen]], "words": words}, targets, weights

    def on_epoch_end(self) -> None:
        self._epoch += 1
        self._batches = self._deal()

    def _deal(self) -> list[np.ndarray]:
        """Caption indices, a batch each."""
        random = np.random.default_rng([self._seed, self._epoch])
        order = random.permutation(len(self._captions))
        group_size = _BATCHES_A_GROUP * self._batch_size
        batches = []
        for start in range(0, len(order), group_size):
            group = order[start : start + group_size]
            group = group[np.argsort(self._lengths[group], kind="stable")]
            batches += np.split(group, range(self._batch_size, len(group), self._batch_size))
        batches = [batches[index] for index in random.permutation(len(batches))]
        # Keras looks at the first two batches, and takes what is equal in both for fixed: so one of
        # the longest comes first and one of the shortest second, wherever lengths differ at all.
        by_length = sorted(
            range(len(batches)), key=lambda index: self._lengths[batches[index]].max()
        )
        first = list(dict.fromkeys([by_length[-1], by_length[0]]))
        return [batches[index] for index in first] + [
            batch for index, batch in enumerate(batches) if index not in first
        ]
