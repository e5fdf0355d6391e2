"""Writes a page about a training run and the captions of one split.

It shows what a score hides: how the training went, which captions are best and worst, and which
words the model confuses. The page links to the images and does not copy them: you may not publish
those of Flickr8k.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from captioning.data.dataset import Captions
from captioning.evaluation.confusions import find_confusions
from captioning.evaluation.metrics import cider_per_image, format_score
from captioning.output.pages import write_page
from captioning.output.training_curves import draw_training, split_by_model, to_url
from captioning.training.checkpoints import STAGE_KEY, best_epoch

_CAPTIONS_SHOWN = 8  # of the best, and of the worst: two rows on a desk, sixteen on a phone
_CONFUSIONS_SHOWN = 4  # of each group: one row


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

    `captions` (image name -> caption) of all images of `split`, with their reference captions as
    written and their scores (see `captioning.evaluation.metrics`). `record` is that of the training
    (see `captioning.training.checkpoints`); sections for which it has nothing are left out.
    """
    cider = cider_per_image(captions, references)
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


def _describe_training(name: str, epochs: Sequence[Mapping]) -> dict:
    """What the page tells of the training of a model."""
    columns = list(dict.fromkeys(key for epoch in epochs for key in epoch))
    return {
        "name": name,
        "stages": list(dict.fromkeys(epoch[STAGE_KEY] for epoch in epochs)),
        "best_epoch": best_epoch(epochs) + 1,
        "light_curves": to_url(draw_training(epochs, "light")),
        "dark_curves": to_url(draw_training(epochs, "dark")),
        "columns": columns,
        "rows": [[_to_text(epoch.get(column, "")) for column in columns] for epoch in epochs],
    }


def _to_text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4f}"
