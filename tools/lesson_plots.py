"""The figures of the notebooks: nothing here teaches, so that the notebooks need not show it."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np


def show_photographs(paths: Sequence[Path], titles: Sequence[str], columns: int = 3) -> None:
    """Photographs in rows; each line of a title is wrapped to the width of its photograph."""
    rows = -(-len(paths) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.6 * columns, 4.1 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, path, title in zip(axes.flat, paths, titles, strict=False):
        axis.imshow(plt.imread(path))
        lines = (textwrap.fill(line, 44) for line in title.splitlines())
        axis.set_title("\n".join(lines), fontsize=9, loc="left")
    figure.tight_layout()
    plt.show()


def show_feature_map(photograph: np.ndarray, feature_map: np.ndarray, count: int = 3) -> None:
    """A photograph (rows, columns, 3) and those `count` of the channels of its feature map (rows,
    columns, channels) that hold the largest numbers."""
    channels = np.argsort(feature_map.max(axis=(0, 1)))[: -count - 1 : -1]
    figure, axes = plt.subplots(1, 1 + count, figsize=(2.7 * (1 + count), 2.9))
    axes[0].imshow(photograph)
    axes[0].set_title("the photograph", fontsize=9)
    for axis, channel in zip(axes[1:], channels, strict=True):
        axis.imshow(feature_map[:, :, channel])
        axis.set_title(f"number {channel:,} of every cell", fontsize=9)
    for axis in axes:
        axis.axis("off")
    figure.tight_layout()
    plt.show()


def show_bars(values: Mapping[str, float], label: str, emphasis: str | None = None) -> None:
    """Horizontal bars with their names and values; the one named `emphasis` is green."""
    names = list(values)
    colours = ["tab:green" if name == emphasis else "tab:blue" for name in names]
    plt.figure(figsize=(7, 0.36 * len(names) + 0.8))
    bars = plt.barh(names, list(values.values()), color=colours)
    plt.bar_label(bars, fmt="%.3g", padding=3, fontsize=9)
    plt.gca().invert_yaxis()
    plt.margins(x=0.1)
    plt.xlabel(label)
    plt.show()


def show_counts(lengths: Sequence[int], label: str) -> None:
    """How often each length occurs."""
    plt.figure(figsize=(7, 2.2))
    plt.hist(lengths, bins=np.arange(max(lengths) + 2) - 0.5)
    plt.xlabel(label)
    plt.ylabel("captions")
    plt.show()


def show_batch(words: np.ndarray, targets: np.ndarray, captions: int = 24) -> None:
    """The first `captions` rows of a batch, a colour for every word id, white for padding."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
    titles = ("words: what the model reads", "targets: what it should answer")
    for axis, ids, title in zip(axes, (words, targets), titles, strict=True):
        axis.imshow(np.ma.masked_equal(ids[:captions], 0), norm="log", aspect="auto")
        axis.set(title=title, xlabel="position in the caption")
    axes[0].set_ylabel("caption")
    figure.tight_layout()
    plt.show()


def show_losses(history: Mapping[str, Sequence[float]]) -> None:
    """Training and development loss by epoch."""
    epochs = range(1, len(history["loss"]) + 1)
    plt.figure(figsize=(7, 3))
    plt.plot(epochs, history["loss"], marker="o", label="training captions")
    plt.plot(epochs, history["val_loss"], marker="o", label="development captions")
    plt.xlabel("epoch")
    plt.ylabel("loss")
    plt.legend()
    plt.show()
