"""Stores captions as word ids, in little memory."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np


class CompactCaptions(Mapping):
    """Image name -> captions, a list of arrays (words,) int32.

    All words are in one array, 4 bytes each. A million captions take 60 MB; as lists of ints they
    would take several hundred.
    """

    def __init__(self, captions: Iterable[tuple[str, Iterable[Sequence[int]]]]):
        """`captions`: image names, which must differ, each with the word ids of its captions. They
        are read once, one image after the other."""
        words, ends, first_captions = array("i"), array("q", [0]), array("q", [0])
        self._rows: dict[str, int] = {}  # image name -> number of the image, from 0
        for image_name, image_captions in captions:
            for caption in image_captions:
                words.extend(caption)
                ends.append(len(words))
            first_captions.append(len(ends) - 1)
            self._rows[image_name] = len(self._rows)
        self._words = np.array(words, "int32")
        self._ends = ends  # of the captions in `_words`; the first is 0
        self._first_captions = first_captions  # of the images; the last is the number of captions

    def __getitem__(self, image_name: str) -> list[np.ndarray]:
        row = self._rows[image_name]
        first, last = self._first_captions[row], self._first_captions[row + 1]
        ends = self._ends[first : last + 1]
        return [self._words[start:end] for start, end in pairwise(ends)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
