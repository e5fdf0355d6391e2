"""Beam search: finds the most probable sequences with a function that scores the next id.

Works on ids and arrays only, without Keras, images or words.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

State = tuple[np.ndarray, ...]
ImageContext = tuple[np.ndarray, ...]
Step = Callable[[np.ndarray, State, ImageContext], tuple[np.ndarray, State]]


@dataclass(frozen=True)
class Hypothesis:
    """A sequence: its ids without start and end, and its log-probability (natural logarithm, the
    end included). `finished` is False if the length limit truncated it."""

    ids: tuple[int, ...]
    log_prob: float
    finished: bool = True

    def score(self, length_normalisation: float) -> float:
        """Returns the log-probability divided by length ** `length_normalisation`; the length
        includes the end."""
        return self.log_prob / (len(self.ids) + self.finished) ** length_normalisation


def beam_search(
    step: Step,
    initial_state: State,
    image_contexts: Iterable[ImageContext],
    *,
    start_id: int,
    end_id: int,
    max_length: int,
    beam_width: int,
    length_normalisation: float = 0.0,
    forbidden_ids: Sequence[int] = (),
    batch_size: int = 32,
) -> Iterator[list[Hypothesis]]:
    """Yields for each image, in order, up to `beam_width` hypotheses, best first.

    `image_contexts` yields a tuple of arrays (...) for each image. `step(ids, state,
    image_context)` takes the last ids (images, beams), the state before them, arrays (images,
    beams, ...), and the context of each image, arrays (images, ...). It returns log-probabilities
    of the next id (images, beams, vocabulary) and the new state, so each word costs one step.
    `initial_state` is the state of a beam before the first word, arrays (...).

    `batch_size` images are searched side by side. As soon as an image is finished, the next one
    takes its place: no image waits for the longest sentence, and only these images are in memory.

    A hypothesis is finished when its end is among the `beam_width` best continuations of its image;
    `beam_width` 1 is greedy search. Sums of log-probabilities favour short sequences:
    `length_normalisation` 0 keeps the sums, 1 compares means per word (Wu et al., 2016). The search
    never chooses `forbidden_ids`, and chooses at most `max_length` ids besides the end. Raises
    ValueError if a width, length or size is below 1.
    """
    if min(beam_width, max_length, batch_size) < 1:
        raise ValueError(
            f"Expected a beam_width, max_length and batch_size of at least 1, got {beam_width}, "
            f"{max_length} and {batch_size}."
        )
    batch = _Batch(
        initial_state, start_id, end_id, batch_size, beam_width, max_length, length_normalisation
    )
    return _search(step, batch, image_contexts, list(forbidden_ids))


def _search(
    step: Step, batch: "_Batch", image_contexts: Iterable[ImageContext], forbidden_ids: list[int]
) -> Iterator[list[Hypothesis]]:
    images = enumerate(image_contexts)
    results: dict[int, list[Hypothesis]] = {}  # by the number of the image
    for next_image in count():
        while next_image not in results:
            batch.fill(images)
            if not len(batch):
                return
            log_probs, state = step(batch.last_ids, batch.state, batch.image_context)
            log_probs = np.require(log_probs, requirements="W")
            log_probs[:, :, forbidden_ids] = -np.inf
            results |= batch.extend(log_probs, state)
        yield results.pop(next_image)


class _Batch:
    """The images that are searched side by side, one a row, with their open beams, best first.

    An image starts with a single beam; the others have log-probability -inf until there are enough
    continuations. `state` (rows, beams, ...) and `image_context` (rows, ...) are inputs of `step`.
    """

    def __init__(
        self,
        initial_state: State,
        start_id: int,
        end_id: int,
        rows: int,
        beam_width: int,
        max_length: int,
        length_normalisation: float,
    ):
        self._initial_state = initial_state
        self._end_id = end_id
        self._beam_width = beam_width
        self._length_normalisation = length_normalisation
        self._is_free = np.ones(rows, bool)
        self._images = np.zeros(rows, int)  # their numbers
        self._ids = np.full((rows, beam_width, 1 + max_length), start_id)
        self._lengths = np.zeros(rows, int)  # of the sequences, the start not counted
        self._log_probs = np.zeros((rows, beam_width))
        self._finished: dict[int, list[Hypothesis]] = {}  # by the number of the image
        self.state = tuple(
            np.empty((rows, beam_width, *part.shape), part.dtype) for part in initial_state
        )
        self.image_context: ImageContext = ()

    def __len__(self) -> int:
        return len(self._images)

    @property
    def last_ids(self) -> np.ndarray:
        """The last id of each beam (rows, beams)."""
        return np.take_along_axis(self._ids, self._lengths[:, None, None], axis=2)[:, :, 0]

    def fill(self, images: Iterator[tuple[int, ImageContext]]) -> None:
        """Puts the next numbered images into the free rows, and drops rows that stay free."""
        for row, (image, context) in zip(np.nonzero(self._is_free)[0], images, strict=False):
            if not self.image_context:
                self.image_context = tuple(
                    np.empty((len(self), *part.shape), part.dtype) for part in context
                )
            self._is_free[row] = False
            self._images[row] = image
            self._lengths[row] = 0
            self._log_probs[row] = [0, *[-np.inf] * (self._beam_width - 1)]
            self._finished[image] = []
            arrays = (*self.state, *self.image_context)
            for array, part in zip(arrays, (*self._initial_state, *context), strict=True):
                array[row] = part
        if self._is_free.any():
            self._drop_free_rows()

    def _drop_free_rows(self) -> None:
        """Moves the last occupied rows into free rows before them, and shortens all arrays."""
        occupied = np.count_nonzero(~self._is_free)
        gaps = np.nonzero(self._is_free[:occupied])[0]
        last = occupied + np.nonzero(~self._is_free[occupied:])[0]

        def close_gaps(array: np.ndarray) -> np.ndarray:
            array[gaps] = array[last]
            return array[:occupied]

        self._images, self._ids = close_gaps(self._images), close_gaps(self._ids)
        self._lengths, self._log_probs = close_gaps(self._lengths), close_gaps(self._log_probs)
        self.state = tuple(map(close_gaps, self.state))
        self.image_context = tuple(map(close_gaps, self.image_context))
        self._is_free = np.zeros(occupied, bool)

    def extend(self, next_log_probs: np.ndarray, state: State) -> dict[int, list[Hypothesis]]:
        """Adds an id to each beam by the log-probabilities of the next id (rows, beams,
        vocabulary), and overwrites these; `state` is the state before that id. Frees the rows of
        images that are now finished, and returns their hypotheses by the number of the image."""
        width = self._beam_width
        # A beam has a single continuation that ends, so one more than the beam width is enough.
        beams, ids, log_probs = _best_continuations(
            self._log_probs, next_log_probs, width + 1
        )  # each (rows, continuations), best first
        is_end = ids == self._end_id
        self._finish(beams, log_probs, is_end[:, :width])
        at_limit = self._lengths == self._ids.shape[2] - 1
        self._cut_off(at_limit)

        open_beams = np.argsort(is_end, axis=1, kind="stable")[:, :width]  # ends come last
        log_probs[is_end] = -np.inf  # in a small vocabulary, some are still among the open beams
        beams, ids, self._log_probs = (
            np.take_along_axis(array, open_beams, axis=1) for array in (beams, ids, log_probs)
        )  # each (rows, width)
        self.state = tuple(part[np.arange(len(self))[:, None], beams] for part in state)
        self._ids = np.take_along_axis(self._ids, beams[:, :, None], axis=1)
        self._lengths += ~at_limit
        np.put_along_axis(self._ids, self._lengths[:, None, None], ids[:, :, None], axis=2)

        self._is_free = at_limit | self._is_finished()
        return {image: self._finished.pop(image) for image in self._images[self._is_free]}

    def _is_finished(self) -> np.ndarray:
        """Returns whether a row has `beam_width` finished hypotheses that all score at least as
        high as its best open beam: bool (rows,)."""
        open_scores = self._log_probs[:, 0] / self._lengths**self._length_normalisation
        scores_to_beat = [
            self._score(finished[-1]) if len(finished) == self._beam_width else -np.inf
            for finished in map(self._finished.get, self._images)
        ]
        return open_scores <= scores_to_beat

    def _finish(self, beams: np.ndarray, log_probs: np.ndarray, is_end: np.ndarray) -> None:
        """Adds the continuations that end to the finished hypotheses of their images, and keeps the
        `beam_width` best of these."""
        for row, rank in zip(*np.nonzero(is_end), strict=True):
            if log_probs[row, rank] > -np.inf:
                finished = self._finished[self._images[row]]
                finished.append(self._hypothesis(row, beams[row, rank], log_probs[row, rank], True))
                finished.sort(key=self._score, reverse=True)
                del finished[self._beam_width :]

    def _cut_off(self, at_limit: np.ndarray) -> None:
        """Takes the open beams of each image at the length limit without a finished hypothesis."""
        for row in np.nonzero(at_limit)[0]:
            if not self._finished[self._images[row]]:
                self._finished[self._images[row]] = [
                    self._hypothesis(row, beam, log_prob, False)
                    for beam, log_prob in enumerate(self._log_probs[row])
                    if log_prob > -np.inf
                ]

    def _score(self, hypothesis: Hypothesis) -> float:
        return hypothesis.score(self._length_normalisation)

    def _hypothesis(self, row: int, beam: int, log_prob: float, finished: bool) -> Hypothesis:
        ids = self._ids[row, beam, 1 : 1 + self._lengths[row]]
        return Hypothesis(tuple(ids.tolist()), float(log_prob), finished)


def _best_continuations(
    log_probs: np.ndarray, next_log_probs: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns beams, ids and log-probabilities of the `count` most probable continuations of each
    beam, each (rows, beams * count), best first, from the log-probabilities of the beams (rows,
    beams) and of their next ids (rows, beams, vocabulary). Overwrites `next_log_probs`."""
    count = min(count, next_log_probs.shape[2])
    ids = np.empty((*log_probs.shape, count), int)
    totals = np.empty(ids.shape)
    # The maximum, `count` times: three times as fast as a partition for three beams of 32 images,
    # and up to three times as slow for very wide beams.
    for rank in range(count):
        best = next_log_probs.argmax(axis=2, keepdims=True)
        ids[:, :, [rank]] = best
        totals[:, :, [rank]] = np.take_along_axis(next_log_probs, best, axis=2)
        np.put_along_axis(next_log_probs, best, -np.inf, axis=2)
    totals += log_probs[:, :, None]
    ids, totals = (array.reshape(len(log_probs), -1) for array in (ids, totals))
    order = np.argsort(-totals, axis=1, kind="stable")
    ids, totals = (np.take_along_axis(array, order, axis=1) for array in (ids, totals))
    return order // count, ids, totals
