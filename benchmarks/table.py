"""Writes measurements as a table for people or as JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.measure import Samples

_LEGEND = (
    "Each figure is the median of the rounds, followed by the lowest and the highest. Program and "
    "tutorial ran in turns; *ratio* is how many times better the program is, within a round."
)


@dataclass(frozen=True)
class Row:
    """One measurement. A target applies to this program (`at_most`, `at_least`) or to how many
    times better than the tutorial it is (`times`)."""

    name: str
    program: Samples
    unit: str = ""
    tutorial: Samples | None = None
    note: str = ""
    at_most: float | None = None
    at_least: float | None = None
    times: float | None = None

    @property
    def ratio(self) -> Samples | None:
        if self.tutorial is None:
            return None
        is_rate = self.unit.endswith("/s")
        return self.program / self.tutorial if is_rate else self.tutorial / self.program

    @property
    def target(self) -> str:
        if self.times is not None:
            return f"≥ {self.times:g} times"
        if self.at_least is not None:
            return f"≥ {self.at_least:g} {self.unit}".strip()
        return "" if self.at_most is None else f"≤ {self.at_most:g} {self.unit}".strip()

    @property
    def is_met(self) -> bool | None:
        """None without a target."""
        if self.times is not None:
            return self.ratio.median >= self.times
        if self.at_least is not None:
            return self.program.median >= self.at_least
        return None if self.at_most is None else self.program.median <= self.at_most


def to_markdown(machine: str, rows: Sequence[Row]) -> str:
    head = ("what", "the usual tutorial", "this program", "ratio", "target", "met")
    cells = [
        (
            row.name,
            f"{row.tutorial} {row.unit}".strip() if row.tutorial else "",
            f"{row.program} {row.unit}".strip() + (f", {row.note}" if row.note else ""),
            str(row.ratio or ""),
            row.target,
            {None: "", True: "yes", False: "no"}[row.is_met],
        )
        for row in rows
    ]
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *cells)]
    return "\n".join([f"{machine}.", "", *lines, "", _LEGEND])


def to_json(machine: str, rows: Sequence[Row]) -> str:
    found = [{**asdict(row), "target": row.target, "met": row.is_met} for row in rows]
    return json.dumps({"machine": machine, "rows": found}, indent=1, ensure_ascii=False)
