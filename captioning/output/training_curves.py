"""The history of a run in, the section of its report that shows how the training went out."""

from collections.abc import Mapping, Sequence
from html import escape

from captioning.output import curves
from captioning.output.page import section
from captioning.training.checkpoints import (
    ENSEMBLE_STAGE,
    MEMBER_KEY,
    MONITOR,
    STAGE_KEY,
    best_epoch,
    epochs_of_last_model,
)

STYLE = (
    """\
.curves { display: grid; gap: 1.5rem; }
.curves { grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); }
.curves figure { padding: 1rem; }
.curves figcaption { padding: 0 0 .6rem; }
details { margin-top: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 1rem .3rem 0; text-align: right; font-weight: normal; }
th { color: var(--quiet); }
"""
    + curves.STYLE
)


def show_training(history: Sequence[Mapping]) -> str:
    """The section on how the training went: of an ensemble, of its members one after the other, and
    of the student that they taught; nothing where no epoch is known."""
    if not history:
        return ""
    members = dict.fromkeys(epoch[MEMBER_KEY] for epoch in history if MEMBER_KEY in epoch)
    if not members:
        return section("Training", *_course(history))
    courses = {
        f"Member {member}": [epoch for epoch in history if epoch.get(MEMBER_KEY) == member]
        for member in members
    }
    told = f"{len(members)} models were trained one after the other."
    if len(members) == 1:
        told = "One model was trained."
    if means := [epoch[MONITOR] for epoch in history if epoch[STAGE_KEY] == ENSEMBLE_STAGE]:
        told += f" The mean of their probabilities has a {MONITOR} of {means[0]:.4f}."
    last = epochs_of_last_model(history)
    if MEMBER_KEY not in last[0]:
        told += f" {'It' if len(members) == 1 else 'They'} taught a student, which was kept."
        courses["Student"] = last
    parts = []
    for title, course in courses.items():
        told_of_it, *shown = _course(course)
        parts += [f"<h3>{title}</h3>\n<p>{escape(told_of_it)}</p>\n", *shown]
    return section("Training", told, *parts)


def _course(history: Sequence[Mapping]) -> list[str]:
    """Of the epochs of one model, what is told of them, as text, and what is drawn and listed, as
    HTML."""
    best = best_epoch(history) + 1
    stages = list(dict.fromkeys(epoch[STAGE_KEY] for epoch in history))
    marks = {best: "kept"}
    for stage in stages[1:]:
        first = 1 + next(n for n, epoch in enumerate(history) if epoch[STAGE_KEY] == stage)
        marks[first] = ", ".join([stage, *([marks[first]] if first in marks else [])])
    drawings = [
        _drawing(history, "Loss", {"loss": "training", "val_loss": "development"}),
        _drawing(history, "CIDEr of the development images", {MONITOR: "CIDEr"}, 100, marks),
        _drawing(
            history,
            "What its own training captions are worth, the reward",
            {"reward": "reward"},
            100,
        ),
    ]
    return [
        f"{len(history)} epochs: {', then '.join(stages)}. Epoch {best}, with the best {MONITOR}, "
        "was kept.",
        f'<div class="curves">\n{"".join(drawings)}</div>\n',
        _table(history),
    ]


def _drawing(
    history: Sequence[Mapping],
    title: str,
    names: Mapping[str, str],
    factor: float = 1,
    marks: Mapping[int, str] | None = None,
) -> str:
    """The numbers `names` (as in the history -> as in the drawing), over those epochs that have
    them; nothing where none has."""
    epochs = [n for n, epoch in enumerate(history) if names.keys() <= epoch.keys()]
    if not epochs:
        return ""
    lines = {shown: [factor * history[n][name] for n in epochs] for name, shown in names.items()}
    drawing = curves.draw_curves(title, lines, epochs[0] + 1, marks)
    return f"<figure>\n<figcaption>{escape(title)}</figcaption>\n{drawing}</figure>\n"


def _table(history: Sequence[Mapping]) -> str:
    """All numbers of all epochs, for who cannot see the drawings or wants more than they show."""
    names = list(dict.fromkeys(name for epoch in history for name in epoch))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("epoch", *names))
    rows = "".join(
        f'<tr><th scope="row">{number}</th>'
        + "".join(f"<td>{escape(_number(epoch.get(name, '')))}</td>" for name in names)
        + "</tr>\n"
        for number, epoch in enumerate(history, start=1)
    )
    return (
        '<details>\n<summary>The numbers of each epoch</summary>\n<div class="wide"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n</details>\n"
    )


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4f}"
