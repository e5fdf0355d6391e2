"""Draws how the training of a model went, epoch by epoch: its losses, its CIDEr and its reward.

Takes the history of a run (see `captioning.training.checkpoints`), gives SVG for a page. Whoever
cannot see the curves needs the numbers, which the page lists.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from captioning.training.checkpoints import (
    ENSEMBLE_STAGE,
    MEMBER_KEY,
    MONITOR,
    STAGE_KEY,
    best_epoch,
)

Epochs = Sequence[Mapping]  # of each epoch, name -> number

_CHARTS = {  # title -> curves (name in the history -> name in the chart)
    "Loss": {"loss": "training", "val_loss": "development"},
    "CIDEr of the development images": {MONITOR: "CIDEr"},
    "Reward of the model's own captions": {"reward": "reward"},
}
_PANEL_WIDTH, _HEIGHT = 4, 2.6  # inches
_COLOURS = {  # of letters and axes, then of the curves
    "light": ("#66635d", "#2f6fd0", "#c2571a"),
    "dark": ("#a5a199", "#7fb0ff", "#f0a26b"),
}


def split_by_model(history: Epochs) -> dict[str, list[Mapping]]:
    """Model -> its epochs: the members of an ensemble, one after the other, and the student that
    they taught, or the only model."""
    models: dict[str, list[Mapping]] = {}
    for epoch in history:
        if epoch[STAGE_KEY] != ENSEMBLE_STAGE:
            rest = "Student" if models and "Model" not in models else "Model"
            name = f"Member {epoch[MEMBER_KEY]}" if MEMBER_KEY in epoch else rest
            models.setdefault(name, []).append(epoch)
    return models


def draw_training(epochs: Epochs, theme: str = "light") -> Figure:
    """A panel for each chart that the epochs have numbers for, in the colours of the `theme`,
    "light" or "dark"."""
    charts = {
        title: curves
        for title, curves in _CHARTS.items()
        if any(curves.keys() <= epoch.keys() for epoch in epochs)
    }
    figure = Figure((_PANEL_WIDTH * len(charts), _HEIGHT), layout="constrained")
    for axes, (title, curves) in zip(
        figure.subplots(1, len(charts), sharex=True, squeeze=False)[0], charts.items(), strict=True
    ):
        _draw_curves(axes, epochs, curves, *_COLOURS[theme])
        axes.set_title(title, loc="left", size=10, color=_COLOURS[theme][0])
    return figure


def to_url(figure: Figure) -> str:
    """The figure as a data URL of SVG."""
    file = BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{b64encode(file.getvalue()).decode('ascii')}"


def _draw_curves(
    axes: Axes, epochs: Epochs, curves: Mapping[str, str], quiet: str, *colours: str
) -> None:
    numbers = [number for number, epoch in enumerate(epochs, 1) if curves.keys() <= epoch.keys()]
    for (name, label), colour, line in zip(curves.items(), colours, ("-", "--"), strict=False):
        values = [epochs[number - 1][name] for number in numbers]
        axes.plot(numbers, values, line, color=colour, marker=".", label=label)
    for number, mark in _marks(epochs).items():
        if number in numbers:
            axes.axvline(number, color=quiet, linestyle=":", linewidth=1)
            axes.text(
                number,
                0.02,
                f"{mark} ",
                ha="right",
                size=8,
                color=quiet,
                transform=axes.get_xaxis_transform(),
            )
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(quiet)
    axes.tick_params(colors=quiet, labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch", color=quiet, size=8)
    if len(curves) > 1:
        axes.legend(frameon=False, labelcolor="linecolor", fontsize=8)


def _marks(epochs: Epochs) -> dict[int, str]:
    """Number of an epoch -> the stage that begins with it, or "kept" for the best epoch."""
    stages = [epoch[STAGE_KEY] for epoch in epochs]
    first_epochs = {stages.index(stage) + 1: stage for stage in stages if stage != stages[0]}
    best = best_epoch(epochs) + 1
    return first_epochs | {best: f"{first_epochs[best]}, kept" if best in first_epochs else "kept"}
