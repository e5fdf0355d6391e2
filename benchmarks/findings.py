"""What was measured in, a table that says whether it is enough out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.timing import Spread

_LEGEND = (
    "Measured: the median of the rounds, in brackets the lowest and the highest. Where the usual "
    "tutorial stands beside it, both ran in turn, and *times* says how many times as long the "
    "tutorial took. What was not measured to its end says that it is scaled or computed."
)


@dataclass(frozen=True)
class Target:
    """What a measurement should come to: at least `number`, or at most."""

    number: float
    is_limit: bool = False

    def holds(self, measured: Spread) -> bool:
        """Whether the median comes to it."""
        if self.is_limit:
            return measured.median <= self.number
        return measured.median >= self.number

    def __str__(self) -> str:
        return f"{'≤' if self.is_limit else '≥'} {self.number:,g}"


@dataclass(frozen=True)
class Finding:
    """One row: `what` was measured, in which `unit` ("times", "s"), and the two sides in words.
    Without a target it is for information."""

    what: str
    measured: Spread
    unit: str
    target: Target | None = None
    tutorial: str = ""
    product: str = ""

    @property
    def verdict(self) -> str:
        return "" if self.target is None else "yes" if self.target.holds(self.measured) else "no"


def to_markdown(machine: str, findings: Sequence[Finding]) -> str:
    """A table, with the machine named above it and its columns explained below."""
    head = ("what", "the usual tutorial", "this program", "measured", "target", "holds")
    rows = [
        (
            one.what,
            one.tutorial,
            one.product,
            f"{one.measured} {one.unit}".strip(),
            str(one.target or ""),
            one.verdict,
        )
        for one in findings
    ]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(["# How fast", "", machine + ".", "", *lines, "", _LEGEND, ""])


def to_json(machine: str, findings: Sequence[Finding]) -> str:
    """The same for programs."""
    rows = [
        {
            "what": one.what,
            "tutorial": one.tutorial,
            "product": one.product,
            "median": one.measured.median,
            "values": one.measured.values,
            "unit": one.unit,
            "target": str(one.target) if one.target else None,
            "holds": one.target.holds(one.measured) if one.target else None,
        }
        for one in findings
    ]
    return json.dumps({"machine": machine, "findings": rows}, indent=1, ensure_ascii=False) + "\n"
