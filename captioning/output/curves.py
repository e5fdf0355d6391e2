"""Lines of numbers in, a drawing of them out, as SVG that stands in a page.

Colours and letters are those of the page: `STYLE` is the CSS that it wants. Whoever cannot see a
drawing needs the numbers, which the page gives elsewhere.
"""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

STYLE = """\
.chart { display: block; width: 100%; height: auto; }
.chart text { fill: var(--quiet); font-size: 13px; }
.chart .name { font-weight: 600; }
.chart .grid { stroke: var(--behind); }
.chart .mark { stroke: var(--quiet); stroke-dasharray: 2 4; }
.chart polyline { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
.chart .line-1 { stroke: #2f6fd0; fill: #2f6fd0; }
.chart .line-2 { stroke: #c2571a; fill: #c2571a; }
.chart polyline.line-2 { stroke-dasharray: 7 4; }
@media (prefers-color-scheme: dark) {
  .chart .line-1 { stroke: #7fb0ff; fill: #7fb0ff; }
  .chart .line-2 { stroke: #f0a26b; fill: #f0a26b; }
}
.chart polyline.line-1, .chart polyline.line-2 { fill: none; }
.chart text.line-1, .chart text.line-2 { stroke: none; }
"""

# In units of the drawing, which the page scales.
_WIDTH, _HEIGHT = 400, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 112, 12, 46  # margins: numbers, names of lines, -, epochs

_MOST_TICKS = 6


def draw_curves(
    title: str,
    curves: Mapping[str, Sequence[float]],
    first_epoch: int = 1,
    marks: Mapping[int, str] | None = None,
) -> str:
    """An SVG element, named `title` for those who hear it.

    `curves`: one or two, name -> a number an epoch, equally many and at least one; the first is
    that of `first_epoch`. `marks`: epoch -> what is to be said of it.
    """
    epochs = range(first_epoch, first_epoch + len(next(iter(curves.values()))))
    numbers = [number for of in curves.values() for number in of]
    ticks = _ticks(min(numbers), max(numbers))
    low, high = ticks[0], ticks[-1]

    def x(epoch: int) -> float:
        share = (epoch - epochs[0]) / max(len(epochs) - 1, 1)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(number: float) -> float:
        share = (number - low) / (high - low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for tick in ticks:
        parts.append(_line(_LEFT, y(tick), right, y(tick), "grid"))
        parts.append(_text(_LEFT - 8, y(tick) + 4, f"{tick:g}", "end"))
    for epoch in epochs[:: 1 + (len(epochs) - 1) // _MOST_TICKS]:
        parts.append(_text(x(epoch), bottom + 18, str(epoch), "middle"))
    parts.append(_text((_LEFT + right) / 2, bottom + 36, "epoch", "middle"))
    for epoch, mark in (marks or {}).items():
        parts.append(_line(x(epoch), _TOP, x(epoch), bottom, "mark"))
        parts.append(_text(x(epoch) - 5, bottom - 6, mark, "end"))
    for number, ((name, values), label_y) in enumerate(
        zip(curves.items(), _apart([y(of[-1]) for of in curves.values()]), strict=True), start=1
    ):
        points = [(x(epoch), y(value)) for epoch, value in zip(epochs, values, strict=True)]
        path = " ".join(f"{left},{top}" for left, top in points)
        parts.append(f'<polyline class="line-{number}" points="{path}"/>')
        parts += [
            f'<circle class="line-{number}" cx="{left}" cy="{top}" r="3"/>' for left, top in points
        ]
        parts.append(_text(right + 10, label_y + 4, name, "start", f"name line-{number}"))
    return (
        f'<svg class="chart" role="img" aria-label="{escape(title)}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, two to seven: the first at or below `low`, the last at or above `high`."""
    span = (high - low) or abs(high) or 1
    power = 10.0 ** floor(log10(span)) / 10
    step = next(step for step in (2 * power, 5 * power, 10 * power, 20 * power) if span <= 5 * step)
    first = floor(low / step)
    last = max(ceil(high / step), first + 1)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _apart(heights: Sequence[float]) -> list[float]:
    """Where to write the names of two lines, so that they do not cover each other."""
    if len(heights) < 2 or abs(heights[0] - heights[1]) >= 16:
        return list(heights)
    middle = sum(heights) / 2
    return [middle - 8, middle + 8] if heights[0] <= heights[1] else [middle + 8, middle - 8]


def _line(left: float, top: float, right: float, bottom: float, style: str) -> str:
    return f'<line class="{style}" x1="{left}" y1="{top}" x2="{right}" y2="{bottom}"/>'


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    style = style and f' class="{style}"'
    return f'<text{style} x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
