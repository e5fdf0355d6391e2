"""Writes measurements as a Markdown table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_LEGEND = (
    "Each figure is the median of the rounds, followed by the lowest and the highest. Program and "
    "tutorial ran in turns; *ratio* is how many times better the program is, within a round."
)


@dataclass(frozen=True)
class Row:
    """One measurement: arrays with a value for each round.

    `target`: a limit of the program's median in its unit, "≤ 1.2 s", or of the ratio's median,
    "≥ 20 times"; empty if there is none.
    """

    name: str
    program: np.ndarray
    unit: str
    tutorial: np.ndarray | None = None
    target: str = ""
    note: str = ""

    @property
    def ratio(self) -> np.ndarray | None:
        if self.tutorial is None:
            return None
        is_rate = self.unit.endswith("/s")
        return self.program / self.tutorial if is_rate else self.tutorial / self.program

    @property
    def is_met(self) -> bool | None:
        """None without a target."""
        if not self.target:
            return None
        sign, limit, unit = self.target.split()
        value = np.median(self.program if unit == self.unit else self.ratio)
        return bool(value >= float(limit) if sign == "≥" else value <= float(limit))


def to_markdown(machine: str, rows: Sequence[Row]) -> str:
    head = ("measurement", "the usual tutorial", "this program", "ratio", "target", "met")
    cells = [
        (
            row.name,
            "" if row.tutorial is None else f"{summarise(row.tutorial)} {row.unit}",
            f"{summarise(row.program)} {row.unit}" + (f", {row.note}" if row.note else ""),
            "" if row.ratio is None else summarise(row.ratio),
            row.target,
            {None: "", True: "yes", False: "no"}[row.is_met],
        )
        for row in rows
    ]
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *cells)]
    return "\n".join([f"{machine}.", "", *lines, "", _LEGEND])


def summarise(values: np.ndarray) -> str:
    """The median, then the lowest and the highest: "3 (2–5)"."""
    numbers = np.median(values), np.min(values), np.max(values)
    median, lowest, highest = (f"{n:.3g}" if n < 1000 else f"{n:,.0f}" for n in numbers)
    return median if lowest == highest else f"{median} ({lowest}–{highest})"
