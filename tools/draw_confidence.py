"""Draws how far the confidence in captions can be trusted: a reliability diagram, and a curve of
risk and coverage.

    python tools/draw_confidence.py --root my_run --output docs/confidence.svg

This command captions the test list of the data set in the folder `my_run`, draws, and prints the
numbers of the figure as two tables in Markdown.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))

from captioning.data.dataset import Dataset  # noqa: E402
from captioning.evaluation.evaluate import caption_photographs, texts_of  # noqa: E402
from captioning.evaluation.metrics import (  # noqa: E402
    find_reliability,
    find_supported,
    score_confidences,
)
from captioning.inference.captioner import Captioner  # noqa: E402
from captioning.paths import Paths  # noqa: E402
from captioning.settings import SPLITS  # noqa: E402

COVERAGES = (10, 25, 50, 75, 100)  # percent
INK, FAINT = "#c41e00", "#999999"


def find_risk(confidences: np.ndarray, supported: np.ndarray) -> np.ndarray:
    """Returns the share of captions that are not supported among the first 1, 2, 3, ... captions in
    the order of their confidence, the highest first: float (captions,)."""
    is_wrong = ~supported[np.argsort(-confidences, kind="stable")]
    return np.cumsum(is_wrong) / np.arange(1, len(is_wrong) + 1)


def write_tables(confidences: np.ndarray, supported: np.ndarray) -> str:
    """Returns the numbers of both diagrams as tables in Markdown."""
    bins = find_reliability(confidences, supported)
    risk = find_risk(confidences, supported)
    counts = [round(len(risk) * coverage / 100) for coverage in COVERAGES]
    rows = [
        ["confidence, mean of the bin", *(f"{confidence:.0%}" for confidence, _, _ in bins)],
        ["supported captions", *(f"{share:.0%}" for _, share, _ in bins)],
        None,
        ["captions kept", *(f"{coverage} %" for coverage in COVERAGES)],
        ["not supported, of those kept", *(f"{risk[count - 1]:.0%}" for count in counts)],
    ]
    lines = [row and f"| {' | '.join(row).replace('%', ' %').replace('  ', ' ')} |" for row in rows]
    for header in (3, 0):
        lines.insert(header + 1, "|---" * len(rows[header]) + "|")
    return "\n".join(line or "" for line in lines)


def draw(confidences: np.ndarray, supported: np.ndarray) -> Figure:
    """Draws the reliability diagram on the left and the risk-coverage curve on the right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    mean_confidences, shares, _ = zip(*find_reliability(confidences, supported), strict=True)
    scores = score_confidences(confidences, supported)
    left.plot([0, 100], [0, 100], color=FAINT, linestyle="--", linewidth=1)
    left.plot(100 * np.array(mean_confidences), 100 * np.array(shares), "o-", color=INK)
    left.set(
        title=f"Reliability (calibration error {scores['calibration error']:.1%})",
        xlabel="confidence, %",
        ylabel="supported captions, %",
        xlim=(0, 100),
        ylim=(0, 100),
        aspect="equal",
    )
    risk = 100 * find_risk(confidences, supported)
    coverage = 100 * np.arange(1, len(risk) + 1) / len(risk)
    shown = coverage >= 5  # the share of a few captions is chance
    right.plot(coverage[shown], risk[shown], color=INK)
    right.axhline(risk[-1], color=FAINT, linestyle="--", linewidth=1)
    right.set(
        title=f"Risk and coverage (AUROC {scores['confidence AUROC']:.2f})",
        xlabel="captions kept, the most confident first, %",
        ylabel="captions not supported, %",
        xlim=(0, 100),
        ylim=(0, 50),
    )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws how far confidences can be trusted.")
    parser.add_argument("--root", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.svg")
    options = parser.parse_args()
    paths = Paths(options.root)
    dataset = Dataset.load(paths.dataset)
    references = dataset.captions_of(options.split)
    captions = caption_photographs(Captioner.load(paths.root), dataset.images, references)
    confidences = np.array([caption.confidence for caption in captions.values()])
    supported = find_supported(texts_of(captions), references)
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "captioning"})
    draw(confidences, supported).savefig(options.output, metadata={"Date": None})
    print(write_tables(confidences, supported))


if __name__ == "__main__":
    main()
