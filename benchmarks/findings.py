"""What was measured in, a table that says whether it is enough out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.timing import Spread


@dataclass(frozen=True)
class Reach:
    """How far a measurement should go: at least `number`, or at most."""

    number: float
    is_limit: bool = False

    def holds(self, measured: Spread) -> bool:
        """Whether the median goes as far."""
        if self.is_limit:
            return measured.median <= self.number
        return measured.median >= self.number

    def __str__(self) -> str:
        return f"{'≤' if self.is_limit else '≥'} {self.number:,g}"


@dataclass(frozen=True)
class Finding:
    """One row: `what` was measured, in which `unit` ("times", "s"), and the two sides in words.
    Without a reach it is for information."""

    what: str
    measured: Spread
    unit: str
    reach: Reach | None = None
    habit: str = ""
    product: str = ""

    @property
    def verdict(self) -> str:
        return "" if self.reach is None else "yes" if self.reach.holds(self.measured) else "no"


def to_markdown(machine: str, findings: Sequence[Finding]) -> str:
    """A table, with the machine named above it."""
    head = ("what", "the habit", "this program", "measured", "reach", "holds")
    rows = [
        (
            one.what,
            one.habit,
            one.product,
            f"{one.measured} {one.unit}".strip(),
            str(one.reach or ""),
            one.verdict,
        )
        for one in findings
    ]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join([machine, "", *lines, ""])


def to_json(machine: str, findings: Sequence[Finding]) -> str:
    """The same for programs."""
    rows = [
        {
            "what": one.what,
            "habit": one.habit,
            "product": one.product,
            "median": one.measured.median,
            "values": one.measured.values,
            "unit": one.unit,
            "reach": str(one.reach) if one.reach else None,
            "holds": one.reach.holds(one.measured) if one.reach else None,
        }
        for one in findings
    ]
    return json.dumps({"machine": machine, "findings": rows}, indent=1, ensure_ascii=False) + "\n"
