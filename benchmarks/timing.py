"""Work in, seconds out. Not about what is measured, nor what it is compared with."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

Work = Callable[[], int]
"""Does a number of equal pieces of work, and says how many."""


@dataclass(frozen=True)
class Spread:
    """Some measurements of one thing."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    def __str__(self) -> str:
        """The median and, in brackets, the lowest and the highest."""
        numbers = self.median, min(self.values), max(self.values)
        middle, low, high = (f"{n:.3g}" if abs(n) < 1000 else f"{n:,.0f}" for n in numbers)
        return middle if low == high else f"{middle} ({low}–{high})"

    def map(self, function: Callable[[float], float]) -> "Spread":
        return Spread(tuple(map(function, self.values)))

    def over(self, other: "Spread") -> "Spread":
        """The ratio of each to the other's of the same round."""
        return Spread(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))


def seconds_a_piece(
    *works: Work, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[Spread]:
    """What a piece of each work takes, measured in turn (A B A B ...), so that whatever else the
    machine does weighs on all of them alike: the ratio of one round is fair where seconds are not.
    """
    measured: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for seconds, work in zip(measured, works, strict=True):
            start = clock()
            pieces = work()
            seconds.append((clock() - start) / pieces)
    return [Spread(tuple(seconds)) for seconds in measured]
