"""Beam search: a function that scores next words in, the most probable sequences out.

Knows ids and arrays only; neither Keras, nor images, nor words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

State = tuple[np.ndarray, ...]
Step = Callable[[np.ndarray, State, np.ndarray], tuple[np.ndarray, State]]


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
    state: State,
    *,
    start: int,
    end: int,
    max_length: int,
    beam_width: int,
    length_normalisation: float = 0.0,
    never: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """For each row of `state`, up to `beam_width` hypotheses, best first.

    `step(ids, state, rows)` takes the last ids (rows, beams) and the state after the words before
    them, a tuple of arrays with (rows, beams) in front, and returns log-probabilities (rows, beams,
    vocabulary) of the next id with the new state: each word costs one step, prefixes are not run
    again. There is one beam a row at first, and as many as `beam_width` as soon as there are words
    to fill them. The state is copied, dropped and reordered along with the beams that it belongs
    to. All rows are searched side by side, and one that is decided costs nothing more: `rows` tells
    which of the first rows these are.

    A hypothesis is finished when its end is among the `beam_width` best continuations of its row;
    `beam_width` 1 is greedy search. Sums of log-probabilities favour short sequences;
    `length_normalisation` 0 keeps them as they are, 1 compares means a word (Wu et al., 2016).
    Ids in `never` are not chosen. At most `max_length` ids are chosen, the end not counted.
    """
    if beam_width < 1 or max_length < 1:
        raise ValueError(
            "Beam search wants a beam width and a length of at least 1. "
            f"Received: beam_width={beam_width}, max_length={max_length}."
        )
    found: list[list[Hypothesis]] = [[] for _ in range(len(state[0]))]
    searching = np.arange(len(found))
    ids = np.full((len(found), 1, 1), start)  # (searching, beam, 1 + chosen)
    log_probs = np.zeros((len(found), 1))

    for chosen in range(max_length + 1):
        if len(searching) == 0:
            break
        next_log_probs, state = step(ids[:, :, -1], state, searching)
        next_log_probs = np.array(next_log_probs)
        next_log_probs[:, :, list(never)] = -np.inf

        # Each beam ends in one way only, so one more of it than the beam is wide is enough.
        parents, words, totals = _most_probable(log_probs, next_log_probs, beam_width + 1)
        ends = words == end
        _collect(found, searching, ids, parents, totals, ends, beam_width, length_normalisation)
        if chosen == max_length:
            break

        go_on = np.argsort(ends, axis=1, kind="stable")[:, :beam_width]  # the others, best first
        totals[ends] = -np.inf  # of few ids, some may be among those that go on
        parents, words, log_probs = (
            np.take_along_axis(each, go_on, axis=1) for each in (parents, words, totals)
        )  # (searching, beam)
        ids = np.concatenate(
            [np.take_along_axis(ids, parents[:, :, None], axis=1), words[:, :, None]], axis=2
        )
        # A row is decided once its best open beam, as it stands, loses to all that it has found.
        open_scores = log_probs[:, 0] / (chosen + 1) ** length_normalisation
        to_beat = [
            row[-1].score(length_normalisation) if len(row) == beam_width else -np.inf
            for row in (found[row] for row in searching)
        ]
        still = np.nonzero(open_scores > to_beat)[0]
        state = tuple(part[still[:, None], parents[still]] for part in state)
        searching, ids, log_probs = searching[still], ids[still], log_probs[still]

    for row, beams, beam_log_probs in zip(searching, ids, log_probs, strict=True):
        if not found[row]:
            found[row] = [
                _hypothesis(beam, log_prob, finished=False)
                for beam, log_prob in zip(beams, beam_log_probs, strict=True)
                if log_prob > -np.inf
            ]
    return found


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


def _collect(
    found: list[list[Hypothesis]],
    searching: np.ndarray,
    ids: np.ndarray,
    parents: np.ndarray,
    totals: np.ndarray,
    ends: np.ndarray,
    beam_width: int,
    length_normalisation: float,
) -> None:
    """Adds the ends among the best continuations to what their rows have found, and keeps as many
    as a beam is wide."""
    for row, rank in zip(*np.nonzero(ends[:, :beam_width]), strict=True):
        if totals[row, rank] > -np.inf:
            hypothesis = _hypothesis(ids[row, parents[row, rank]], totals[row, rank], True)
            of_row = found[searching[row]]
            of_row.append(hypothesis)
            of_row.sort(key=lambda one: one.score(length_normalisation), reverse=True)
            del of_row[beam_width:]


def _hypothesis(ids: np.ndarray, log_prob: float, finished: bool) -> Hypothesis:
    """Of ids with the start in front."""
    return Hypothesis(tuple(ids[1:].tolist()), float(log_prob), finished)
