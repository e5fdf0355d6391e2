"""Writes a page about a training run and the captions of one split.

The page shows what a score hides: the curves of the training, the best and the worst captions, and
the words that the model confuses. It links to the images instead of copying them, because you may
not publish those of Flickr8k.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from captioning.data.dataset import Captions
from captioning.evaluation.confusions import find_confusions
from captioning.evaluation.metrics import compute_cider_per_image, format_score
from captioning.output.pages import write_page
from captioning.training.checkpoints import (
    CONTINUATION_KEY,
    ENSEMBLE_STAGE,
    MEMBER_KEY,
    MONITOR,
    STAGE_KEY,
    find_best_epoch,
)

_CAPTIONS_SHOWN = 8  # of the best, and of the worst: two rows of four on a desk
_CONFUSIONS_SHOWN = 4  # of each group: one row

_CHARTS = {  # title -> curves (name in the history -> name in the chart)
    "Loss": {"loss": "training", "val_loss": "development"},
    "CIDEr of the development images": {MONITOR: "CIDEr"},
    "Reward of the model's own captions": {"reward": "reward"},
}
_CHART_WIDTH, _CHART_HEIGHT = 4, 2.6  # inches
_COLOURS = {  # of letters and axes, then of the curves
    "light": ("#66635d", "#2f6fd0", "#c2571a"),
    "dark": ("#a5a199", "#7fb0ff", "#f0a26b"),
}


def write_report(
    page_path: Path,
    split: str,
    captions: Mapping[str, str],
    references: Captions,
    scores: Mapping[str, float],
    image_folder: Path,
    record: Mapping,
) -> None:
    """Writes the page. Replaces an older page.

    `captions` (image name -> caption) are those of all images of `split`; `references` are their
    reference captions as written, `scores` the result of `captioning.evaluation.metrics`. `record`
    is that of the training (see `captioning.training.checkpoints`). The page leaves out sections
    that need more than the record holds.
    """
    cider = compute_cider_per_image(captions, references)
    by_cider = sorted(cider, key=cider.get, reverse=True)
    models = split_by_model(record.get("history", []))
    write_page(
        page_path,
        "report.html",
        title="Report of a training run",
        split=split,
        captions=captions,
        references=references,
        image_folder=image_folder,
        scores={name: format_score(name, score) for name, score in scores.items()},
        models=[_describe_training(name, epochs) for name, epochs in models.items()],
        cider={name: f"CIDEr {format_score('CIDEr', score)}" for name, score in cider.items()},
        best=by_cider[:_CAPTIONS_SHOWN],
        worst=by_cider[: -_CAPTIONS_SHOWN - 1 : -1],
        confusions_by_group=find_confusions(captions, references),
        confusions_shown=_CONFUSIONS_SHOWN,
        settings=record.get("settings"),
    )


def split_by_model(history: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    """Returns model name -> its epochs, for the members of an ensemble and their student, or for
    the only model, and for the runs that continued it."""
    single_model = "Student" if any(MEMBER_KEY in epoch for epoch in history) else "Model"
    models: dict[str, list[Mapping]] = {}
    for epoch in history:
        name = single_model
        if MEMBER_KEY in epoch:
            name = f"Member {epoch[MEMBER_KEY]}"
        elif CONTINUATION_KEY in epoch:
            name = f"Continuation {epoch[CONTINUATION_KEY]}"
        if epoch[STAGE_KEY] != ENSEMBLE_STAGE:
            models.setdefault(name, []).append(epoch)
    return models


def draw_curves(epochs: Sequence[Mapping], theme: str = "light") -> Figure:
    """Draws the losses, the CIDEr and the reward of a model, epoch by epoch.

    `epochs` is the history of the model (see `captioning.training.checkpoints`); a chart without
    numbers in it is left out. `theme` is "light" or "dark".
    """
    charts = {
        title: curves
        for title, curves in _CHARTS.items()
        if any(curves.keys() <= epoch.keys() for epoch in epochs)
    }
    figure = Figure((_CHART_WIDTH * len(charts), _CHART_HEIGHT), layout="constrained")
    for axes, (title, curves) in zip(
        figure.subplots(1, len(charts), sharex=True, squeeze=False)[0], charts.items(), strict=True
    ):
        _draw_chart(axes, epochs, curves, *_COLOURS[theme])
        axes.set_title(title, loc="left", size=10, color=_COLOURS[theme][0])
    return figure


def to_data_url(figure: Figure) -> str:
    """Returns the figure as a data URL of SVG."""
    file = BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{b64encode(file.getvalue()).decode('ascii')}"


def _describe_training(name: str, epochs: Sequence[Mapping]) -> dict:
    """The values of the template for the training of one model."""
    keys = dict.fromkeys(key for epoch in epochs for key in epoch)
    columns = [key for key in keys if key not in (MEMBER_KEY, CONTINUATION_KEY)]
    return {
        "name": name,
        "stages": list(dict.fromkeys(epoch[STAGE_KEY] for epoch in epochs)),
        "best_epoch": find_best_epoch(epochs) + 1,
        "light_curves": to_data_url(draw_curves(epochs, "light")),
        "dark_curves": to_data_url(draw_curves(epochs, "dark")),
        "columns": columns,
        "rows": [[_to_text(epoch.get(column, "")) for column in columns] for epoch in epochs],
    }


def _to_text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4f}"


def _draw_chart(
    axes: Axes, epochs: Sequence[Mapping], curves: Mapping[str, str], quiet: str, *colours: str
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


def _marks(epochs: Sequence[Mapping]) -> dict[int, str]:
    """Number of an epoch -> the stage that begins with it, or "kept" for the best epoch."""
    stages = [epoch[STAGE_KEY] for epoch in epochs]
    first_epochs = {stages.index(stage) + 1: stage for stage in stages if stage != stages[0]}
    best = find_best_epoch(epochs) + 1
    return first_epochs | {best: f"{first_epochs[best]}, kept" if best in first_epochs else "kept"}
