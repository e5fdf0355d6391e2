"""Draws the figures of the notebooks. This code is not part of the lesson, so it is kept here."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np


def show_photographs(paths: Sequence[Path], titles: Sequence[str], columns: int = 3) -> None:
    """Shows photographs in rows. Each line of a title is wrapped to the width of its photograph."""
    rows = -(-len(paths) // columns)
    font_size = 9 if columns <= 3 else 13  # notebooks shrink wide figures
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 4.1 * rows), squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.15)  # inches
    for axis in axes.flat:
        axis.axis("off")
        axis.set_anchor("NW")  # aligns the photograph with its title on the left
    for axis, path, title in zip(axes.flat, paths, titles, strict=False):
        axis.imshow(plt.imread(path), cmap="gray")  # for grey photographs
        lines = (textwrap.fill(line, 400 // font_size) for line in title.splitlines())
        axis.set_title("\n".join(lines), fontsize=font_size, loc="left")
    plt.show()


def show_feature_map(photograph: np.ndarray, feature_map: np.ndarray, count: int = 3) -> None:
    """Shows a photograph (rows, columns, 3) and `count` channels of its feature map (rows, columns,
    channels): those with the largest maxima, if these are at least three cells apart."""
    channels, peaks = [], []
    for channel in np.argsort(-feature_map.max(axis=(0, 1))):
        peak = np.unravel_index(feature_map[:, :, channel].argmax(), feature_map.shape[:2])
        if len(channels) < count and all(np.abs(np.subtract(peak, p)).max() > 2 for p in peaks):
            channels.append(channel)
            peaks.append(peak)
    figure, axes = plt.subplots(1, 1 + count, figsize=(2.7 * (1 + count), 2.9))
    axes[0].imshow(photograph)
    axes[0].set_title("the photograph", fontsize=9)
    for axis, channel in zip(axes[1:], channels, strict=False):
        axis.imshow(feature_map[:, :, channel])
        axis.set_title(f"number {channel:,} of every cell", fontsize=9)
    for axis in axes:
        axis.axis("off")
    figure.tight_layout()
    plt.show()


def show_bars(
    values: Mapping[str, float], label: str, emphasis: str | None = None, digits: int = 1
) -> None:
    """Shows horizontal bars with their names and values. The bar named `emphasis` is green."""
    names = list(values)
    colours = ["tab:green" if name == emphasis else "tab:blue" for name in names]
    plt.figure(figsize=(7, 0.36 * len(names) + 0.8))
    bars = plt.barh(names, list(values.values()), color=colours)
    plt.bar_label(bars, fmt=f"%.{digits}f", padding=3, fontsize=9)
    plt.gca().invert_yaxis()
    plt.margins(x=0.1)
    plt.xlabel(label)
    plt.show()


def show_counts(lengths: Sequence[int], label: str) -> None:
    """Shows a histogram of the lengths."""
    plt.figure(figsize=(7, 2.2))
    plt.hist(lengths, bins=np.arange(max(lengths) + 2) - 0.5)
    plt.xlabel(label)
    plt.ylabel("captions")
    plt.show()


def show_batch(words: np.ndarray, targets: np.ndarray) -> None:
    """Shows the rows of a batch: a colour for each word id, white for padding."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True)
    titles = ("words: what the model reads", "targets: what it should answer")
    for axis, ids, title in zip(axes, (words, targets), titles, strict=True):
        axis.imshow(np.ma.masked_equal(ids, 0), norm="log", aspect="auto")
        axis.set(title=title, xlabel="position in the caption")
    axes[0].set_ylabel("caption")
    figure.tight_layout()
    plt.show()


def show_losses(history: Mapping[str, Sequence[float]]) -> None:
    """Shows the training and development loss by epoch."""
    epochs = range(1, len(history["loss"]) + 1)
    plt.figure(figsize=(7, 3))
    plt.plot(epochs, history["loss"], marker="o", label="training captions")
    plt.plot(epochs, history["val_loss"], marker="o", label="development captions")
    plt.xlabel("epoch")
    plt.ylabel("loss")
    plt.legend()
    plt.show()


def show_gains(gains: Mapping[str, tuple[float, float]], label: str) -> None:
    """Shows the gain of each step as an arrow from the score before to the score after."""
    figure, axis = plt.subplots(figsize=(8, 0.45 * len(gains) + 0.9))
    for row, (before, after) in enumerate(gains.values()):
        colour = "tab:green" if after - before > 1 else "tab:grey"
        axis.annotate(
            "",
            (after, row),
            (before, row),
            arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2, "shrinkA": 0},
        )
        axis.plot(before, row, "o", color=colour)
        low, high = sorted((before, after))
        axis.text(low - 0.3, row, f"{low:.1f}", ha="right", va="center", fontsize=9)
        axis.text(high + 0.3, row, f"{high:.1f}", ha="left", va="center", fontsize=9)
    axis.set_yticks(range(len(gains)), list(gains))
    axis.invert_yaxis()
    axis.set_xlabel(label)
    axis.margins(x=0.12)
    axis.grid(axis="x", alpha=0.3)
    plt.show()


def show_smoothing_and_schedule(
    words: Sequence[str], targets: Sequence[Sequence[float]], rates: Sequence[float]
) -> None:
    """Shows two targets for the same next word, and the learning rate by training step."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8))
    positions = np.arange(len(words))
    for shift, target, name in zip((-0.2, 0.2), targets, ("plain", "smoothed"), strict=True):
        left.bar(positions + shift, target, 0.4, label=name)
    left.set_xticks(positions, words)
    left.set_ylabel("target")
    left.legend()
    right.plot(np.linspace(0, 100, len(rates)), rates, color="tab:green")
    right.set(xlabel="per cent of the training", ylabel="learning rate")
    figure.tight_layout()
    plt.show()


def show_runs(runs: Mapping[str, Sequence[float]], label: str) -> None:
    """Shows a curve for each run, by epoch."""
    plt.figure(figsize=(8, 3.2))
    for name, scores in runs.items():
        plt.plot(range(1, len(scores) + 1), scores, marker=".", label=name)
    plt.xlabel("epoch")
    plt.ylabel(label)
    plt.legend(fontsize=9)
    plt.show()


def show_arrays(images: Sequence[np.ndarray], titles: Sequence[str]) -> None:
    """Shows arrays of pixels in one row."""
    figure, axes = plt.subplots(1, len(images), figsize=(2.9 * len(images), 3.4))
    for axis, image, title in zip(axes, images, titles, strict=True):
        axis.imshow(image)
        axis.set_title(textwrap.fill(title, 34), fontsize=9, loc="left")
        axis.axis("off")
    figure.tight_layout()
    plt.show()
