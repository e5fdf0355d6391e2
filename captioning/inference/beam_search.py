"""Beam search: a function that scores next words in, the most probable sequences out.

Knows ids and arrays only; neither Keras, nor photographs, nor words.
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
    """One sequence found: its ids without start and end, and its log-probability (natural log),
    the end included. `finished` is False if the length limit cut it off."""

    ids: tuple[int, ...]
    log_prob: float
    finished: bool = True

    def score(self, length_normalisation: float) -> float:
        """Log-probability divided by length ** `length_normalisation`, the end counted."""
        return self.log_prob / (len(self.ids) + self.finished) ** length_normalisation


def beam_search(
    step: Step,
    initial_state: State,
    images: Iterable[ImageContext],
    *,
    start: int,
    end: int,
    max_length: int,
    beam_width: int,
    length_normalisation: float = 0.0,
    never: Sequence[int] = (),
    at_once: int = 32,
) -> Iterator[list[Hypothesis]]:
    """For each of `images`, in order, up to `beam_width` hypotheses, best first.

    An image is what was seen in it, a tuple of arrays (...). `step(ids, state, seen)` takes the
    last ids (rows, beams), the state after the words before them, arrays (rows, beams, ...), and
    what was seen in the image of each row, arrays (rows, ...), and returns log-probabilities (rows,
    beams, vocabulary) of the next id with the new state: each word costs one step, prefixes are not
    run again. `initial_state` is the state of a beam before the first word, arrays (...). State is
    copied, dropped and reordered along with the beams that it belongs to.

    `at_once` images are searched side by side, a row each, and one that is decided gives its row
    to the next: none waits for the longest sentence, and memory holds these only. When there are
    no more images, rows become fewer.

    A hypothesis is finished when its end is among the `beam_width` best continuations of its row;
    `beam_width` 1 is greedy search. Sums of log-probabilities favour short sequences;
    `length_normalisation` 0 keeps them as they are, 1 compares means a word (Wu et al., 2016).
    Ids in `never` are not chosen. At most `max_length` ids are chosen, the end not counted.
    """
    if min(beam_width, max_length, at_once) < 1:
        raise ValueError(
            "Beam search wants a beam width, a length and images at once of at least 1. "
            f"Received: beam_width={beam_width}, max_length={max_length}, at_once={at_once}."
        )
    rows = _Rows(initial_state, start, at_once, beam_width, max_length)
    return _search(step, rows, images, end, length_normalisation, list(never))


def _search(
    step: Step,
    rows: "_Rows",
    images: Iterable[ImageContext],
    end: int,
    length_normalisation: float,
    never: list[int],
) -> Iterator[list[Hypothesis]]:
    numbered = enumerate(images)
    decided: dict[int, list[Hypothesis]] = {}
    for number in count():
        while number not in decided:
            rows.fill(numbered)
            if not len(rows):
                return
            next_log_probs, state = step(rows.last_ids, rows.state, rows.seen)
            next_log_probs = np.require(next_log_probs, requirements="W")
            next_log_probs[:, :, never] = -np.inf
            decided |= rows.go_on(next_log_probs, state, end, length_normalisation)
        yield decided.pop(number)


class _Rows:
    """The images that are searched side by side, and the beams of each, best first. All take the
    step; an image begins with one, and the others weigh -inf until there are words to fill them.

    `state` and `seen`: as for the step of `beam_search`.
    """

    def __init__(
        self, initial_state: State, start: int, rows: int, beam_width: int, max_length: int
    ):
        self._nothing_said = initial_state
        self._is_free = np.ones(rows, bool)
        self._numbers = np.zeros(rows, int)
        self._ids = np.full((rows, beam_width, 1 + max_length), start)
        self._lengths = np.zeros(rows, int)  # of the sequences, the start not counted
        self._log_probs = np.zeros((rows, beam_width))
        self._found: dict[int, list[Hypothesis]] = {}  # by the number of the image
        self.state = tuple(
            np.empty((rows, beam_width, *part.shape), part.dtype) for part in initial_state
        )
        self.seen: ImageContext = ()

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def last_ids(self) -> np.ndarray:
        """The last of each sequence (rows, beams)."""
        return np.take_along_axis(self._ids, self._lengths[:, None, None], axis=2)[:, :, 0]

    def fill(self, images: Iterator[tuple[int, ImageContext]]) -> None:
        """Gives each row that is free to the next of the numbered `images`, and drops those that
        stay free."""
        for row, (number, seen) in zip(np.nonzero(self._is_free)[0], images, strict=False):
            if not self.seen:
                self.seen = tuple(np.empty((len(self), *part.shape), part.dtype) for part in seen)
            self._is_free[row] = False
            self._numbers[row] = number
            self._lengths[row] = 0
            self._log_probs[row] = np.where(np.arange(self._log_probs.shape[1]) == 0, 0, -np.inf)
            self._found[number] = []
            for ours, part in zip(
                (*self.state, *self.seen), (*self._nothing_said, *seen), strict=True
            ):
                ours[row] = part
        if self._is_free.any():
            self._drop_free()

    def _drop_free(self) -> None:
        """Moves the last rows to where others are free."""
        count = np.count_nonzero(~self._is_free)
        to = np.nonzero(self._is_free[:count])[0]
        last = count + np.nonzero(~self._is_free[count:])[0]

        def without_gaps(part: np.ndarray) -> np.ndarray:
            part[to] = part[last]
            return part[:count]

        self._numbers, self._ids, self._lengths, self._log_probs, self._is_free = map(
            without_gaps,
            (self._numbers, self._ids, self._lengths, self._log_probs, self._is_free),
        )
        self.state, self.seen = (tuple(map(without_gaps, of)) for of in (self.state, self.seen))

    def go_on(
        self, next_log_probs: np.ndarray, state: State, end: int, length_normalisation: float
    ) -> dict[int, list[Hypothesis]]:
        """Adds an id to each sequence, by log-probabilities (rows, beams, vocabulary), which are
        overwritten; `state` is that after the ids before. Frees the rows of the images that are
        decided then, and returns what is found of them, by their numbers."""
        beam_width = self._log_probs.shape[1]
        # Each beam ends in one way only, so one more of it than the beam is wide is enough.
        parents, words, totals = _most_probable(self._log_probs, next_log_probs, beam_width + 1)
        ends = words == end
        self._collect(parents, totals, ends[:, :beam_width], length_normalisation)
        at_limit = self._lengths == self._ids.shape[2] - 1
        self._cut_off(at_limit)

        go_on = np.argsort(ends, axis=1, kind="stable")[:, :beam_width]  # the others, best first
        totals[ends] = -np.inf  # of few ids, some may be among those that go on
        parents, words, self._log_probs = (
            np.take_along_axis(each, go_on, axis=1) for each in (parents, words, totals)
        )  # (rows, beams)
        self.state = tuple(part[np.arange(len(self))[:, None], parents] for part in state)
        self._ids = np.take_along_axis(self._ids, parents[:, :, None], axis=1)
        self._lengths += ~at_limit
        np.put_along_axis(self._ids, self._lengths[:, None, None], words[:, :, None], axis=2)

        # A row is decided once its best open beam, as it stands, loses to all that it has found.
        open_scores = self._log_probs[:, 0] / self._lengths**length_normalisation
        to_beat = [
            found[-1].score(length_normalisation) if len(found) == beam_width else -np.inf
            for found in (self._found[number] for number in self._numbers)
        ]
        self._is_free = at_limit | (open_scores <= to_beat)
        return {number: self._found.pop(number) for number in self._numbers[self._is_free]}

    def _collect(
        self,
        parents: np.ndarray,
        totals: np.ndarray,
        ends: np.ndarray,
        length_normalisation: float,
    ) -> None:
        """Adds the ends among the best continuations to what is found of their images, of which as
        many are kept as a beam is wide."""
        for row, rank in zip(*np.nonzero(ends), strict=True):
            if totals[row, rank] > -np.inf:
                found = self._found[self._numbers[row]]
                found.append(self._hypothesis(row, parents[row, rank], totals[row, rank], True))
                found.sort(key=lambda one: one.score(length_normalisation), reverse=True)
                del found[self._log_probs.shape[1] :]

    def _cut_off(self, at_limit: np.ndarray) -> None:
        """Of images of which nothing else is found, takes the beams as they are."""
        for row in np.nonzero(at_limit)[0]:
            if not self._found[self._numbers[row]]:
                self._found[self._numbers[row]] = [
                    self._hypothesis(row, beam, log_prob, False)
                    for beam, log_prob in enumerate(self._log_probs[row])
                    if log_prob > -np.inf
                ]

    def _hypothesis(self, row: int, beam: int, log_prob: float, finished: bool) -> Hypothesis:
        ids = self._ids[row, beam, 1 : 1 + self._lengths[row]]
        return Hypothesis(tuple(ids.tolist()), float(log_prob), finished)


def _most_probable(
    log_probs: np.ndarray, next_log_probs: np.ndarray, of_beam: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of log_probs (rows, beams) and what each word adds to them (rows, beams, vocabulary), the
    `of_beam` highest sums of each beam, those of a row highest first: their beams, words and
    values, each (rows, beams * of_beam). Overwrites `next_log_probs`."""
    of_beam = min(of_beam, next_log_probs.shape[2])
    words = np.empty((*log_probs.shape, of_beam), int)
    totals = np.empty(words.shape)
    # The highest, several times: three times as fast as a partition for three beams of 32 images,
    # and up to three times as slow for very wide ones.
    for rank in range(of_beam):
        highest = next_log_probs.argmax(axis=2, keepdims=True)
        words[:, :, [rank]] = highest
        totals[:, :, [rank]] = np.take_along_axis(next_log_probs, highest, axis=2)
        np.put_along_axis(next_log_probs, highest, -np.inf, axis=2)
    totals += log_probs[:, :, None]
    words, totals = (part.reshape(len(log_probs), -1) for part in (words, totals))
    best = np.argsort(-totals, axis=1, kind="stable")
    return best // of_beam, *(np.take_along_axis(part, best, axis=1) for part in (words, totals))
