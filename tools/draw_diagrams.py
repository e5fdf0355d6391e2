"""Draws the diagrams of the notebooks.

    python tools/draw_diagrams.py

This command writes three PNG files to `docs/`: the merge model, a caption shifted by one word, and
a beam search. The notebooks call the same functions with the numbers and words of their own run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

DOCS = Path(__file__).parents[1] / "docs"

IMAGE, SENTENCE, DECODER, PLAIN = "#cfe2f3", "#d9ead3", "#fce5cd", "#f3f3f3"
INK, FAINT, KEPT = "#333333", "#999999", "#2e7d32"


@dataclass(frozen=True)
class Candidate:
    """A word that a beam search considers. `parent`: the index of the previous word in the previous
    level; `log_prob`: the log-probability of the sentence so far; `kept`: whether the beam keeps
    it."""

    word: str
    parent: int
    log_prob: float
    kept: bool


def draw_merge_model(vocabulary_size: int, feature_width: int, units: int) -> Figure:
    """Draws the merge model from left to right, with the shape of the array at each arrow. n is the
    number of words that the model has read."""
    axes = _canvas(14.2, 3.5)
    vector, sequence = f"{units}", f"n × {units}"
    upper, middle, lower = 2.75, 1.75, 0.75

    for y, colour, boxes in (
        (upper, IMAGE, ("photograph", "Xception", "Dropout", "Dense\nReLU")),
        (lower, SENTENCE, ("words\nso far", "Embedding", "Dropout", "LSTM")),
    ):
        for x, text in zip((0.85, 3.7, 6.0, 7.9), boxes, strict=True):
            _box(axes, x, y, text, PLAIN if x < 1 else colour)
    for x, text in ((10.5, "Add,\nDropout"), (12.4, "Dense\nReLU"), (14.7, "Embedding,\nreversed")):
        _box(axes, x, middle, text, DECODER)
    _box(axes, 17.2, middle, "next word")

    for y, first, second in (
        (upper, "299 × 299 × 3", f"{feature_width:,}"),
        (lower, "n", sequence),
    ):
        _arrow(axes, (1.55, y), (3.0, y), first)
        _arrow(axes, (4.4, y), (5.3, y), second)
        _arrow(axes, (6.7, y), (7.2, y))
    _arrow(axes, (8.6, upper), (9.8, middle + 0.2))
    axes.text(9.3, 2.5, vector, color=INK, fontsize=9)
    _arrow(axes, (8.6, lower), (9.8, middle - 0.2))
    axes.text(9.3, 0.9, sequence, color=INK, fontsize=9)
    _arrow(axes, (11.2, middle), (11.7, middle))
    _arrow(axes, (13.1, middle), (14.0, middle), sequence)
    _arrow(axes, (15.4, middle), (16.5, middle), f"n × {vocabulary_size:,}")

    _label(axes, 5.7, 3.3, "feature extractor: the photograph, once", IMAGE)
    _label(axes, 5.7, 0.2, "sequence processor: the sentence so far", SENTENCE)
    _label(axes, 12.6, 2.4, "decoder: both together", DECODER)
    axes.set(xlim=(0.05, 18.0), ylim=(0, 3.5))
    return axes.figure


def draw_shifted_caption(words: Sequence[str]) -> Figure:
    """Draws the words of a caption, including start and end, as the LSTM reads them (below) and as
    the model should predict them (above): the same words, shifted by one."""
    axes = _canvas(1.6 * len(words), 3.7)
    last = 2.9 + 2 * (len(words) - 2)
    axes.plot([1.55, last], [3.2, 3.2], color="#6fa8dc", linewidth=3, zorder=0)
    _box(axes, 0.85, 3.2, "photograph", IMAGE)
    for position, (word, next_word) in enumerate(zip(words[:-1], words[1:], strict=True)):
        x = 2.9 + 2 * position
        _box(axes, x, 0.6, word, PLAIN)
        _box(axes, x, 1.9, "LSTM", SENTENCE)
        _box(axes, x, 3.2, "decoder", DECODER)
        _box(axes, x, 4.5, next_word, PLAIN)
        for y in (0.6, 1.9, 3.2):
            _arrow(axes, (x, y + 0.36), (x, y + 0.94))
        if x < last:
            _arrow(axes, (x + 0.7, 1.9), (x + 1.3, 1.9), "state")
    for y, text in ((0.6, "the model reads"), (4.5, "it should answer")):
        axes.text(0.1, y, text, ha="left", va="center", color=INK, fontsize=11, weight="bold")
    axes.set(xlim=(0, last + 0.8), ylim=(0.1, 5.0))
    return axes.figure


def draw_beam_search(levels: Sequence[Sequence[Candidate]]) -> Figure:
    """Draws a beam search as a tree from left to right, with a column for each word. The beam keeps
    the green candidates and drops the grey ones."""
    height = max(map(len, levels))
    axes = _canvas(2.6 * len(levels) + 1.2, 0.62 * height + 0.1)
    parents = [(0.8, height / 2)]
    _box(axes, *parents[0], "<start>")
    for depth, level in enumerate(levels, start=1):
        x = 0.8 + 3.2 * depth
        gap = height / len(level)
        centres = [(x, height - gap * (index + 0.5)) for index in range(len(level))]
        for (_, y), candidate in zip(centres, level, strict=True):
            colour = KEPT if candidate.kept else FAINT
            x_parent, y_parent = parents[candidate.parent]
            _arrow(axes, (x_parent + 0.72, y_parent), (x - 0.72, y), colour=colour)
            text = f"{candidate.word}  {candidate.log_prob:.1f}"
            _box(axes, x, y, text, SENTENCE if candidate.kept else PLAIN, colour)
        parents = centres
    axes.set(xlim=(0, 1.6 + 3.2 * len(levels)), ylim=(0, height))
    return axes.figure


def grow_tree(
    words: Sequence[str], first: np.ndarray, sums: np.ndarray
) -> tuple[list[Candidate], list[Candidate]]:
    """Returns the two levels of a search for two words, with the three best continuations of each
    sentence.

    `first`: log-probabilities of the first word (vocabulary); `sums`: log-probabilities of the best
    first words together with each second word (beam width, vocabulary).
    """
    beam_width = len(sums)
    level = [
        Candidate(words[word_id], 0, first[word_id], rank < beam_width)
        for rank, word_id in enumerate(np.argsort(-first)[: beam_width + 1])
    ]
    threshold = np.sort(sums, axis=None)[-beam_width]
    next_level = [
        Candidate(words[word_id], parent, sums[parent, word_id], sums[parent, word_id] >= threshold)
        for parent in range(beam_width)
        for word_id in np.argsort(-sums[parent])[:3]
    ]
    return level, next_level


def _canvas(width: float, height: float) -> Axes:
    """Makes axes without a frame that fill a figure; sizes in inches."""
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    return axes


def _box(axes: Axes, x: float, y: float, text: str, fill: str = PLAIN, edge: str = INK) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x - 0.6, y - 0.24),
            1.2,
            0.48,
            boxstyle="round,pad=0.1",
            facecolor=fill,
            edgecolor=edge,
        )
    )
    colour = edge if edge == FAINT else INK
    axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=10.5, linespacing=1.1)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str = "",
    colour: str = INK,
) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour})
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.12
    axes.text(x, y, text, ha="center", va="bottom", color=INK, fontsize=9)


def _label(axes: Axes, x: float, y: float, text: str, fill: str) -> None:
    box = {"boxstyle": "round,pad=0.25", "facecolor": fill, "edgecolor": "none"}
    axes.text(x, y, text, ha="center", va="center", color=INK, fontsize=10.5, bbox=box)


def main() -> None:
    tree = (
        (
            Candidate("a", 0, -0.4, True),
            Candidate("two", 0, -1.9, True),
            Candidate("the", 0, -2.3, False),
        ),
        (
            Candidate("dog", 0, -1.6, True),
            Candidate("man", 0, -1.8, True),
            Candidate("brown", 0, -2.5, False),
            Candidate("dogs", 1, -2.2, False),
            Candidate("men", 1, -3.2, False),
        ),
    )
    for name, figure in (
        ("merge_model", draw_merge_model(2538, 2048, 256)),
        ("shifted_caption", draw_shifted_caption("<start> a black dog runs <end>".split())),
        ("beam_search", draw_beam_search(tree)),
    ):
        figure.savefig(DOCS / f"{name}.png", dpi=100)
        plt.close(figure)


if __name__ == "__main__":
    main()
