"""A training run and its captions of one split in, a page about them out.

It shows what a score does not: how the training went, which captions are the best and the worst,
and which words are taken for which. The images are linked, not copied: of Flickr8k, they may not be
published.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

from captioning.data.dataset import Captions
from captioning.evaluation.confusions import Confusion, find_confusions
from captioning.evaluation.metrics import cider_per_image, format_score
from captioning.output.page import definitions, figure, images, section, write_page
from captioning.output.training_curves import STYLE as TRAINING_STYLE
from captioning.output.training_curves import show_training

_SHOWN = 8  # of the best captions, and of the worst: two rows on a desk, sixteen on a phone
_CONFUSIONS_SHOWN = 4  # of each group: one row

_STYLE = """\
section { margin: 0 0 3rem; }
h2 { margin: 0 0 .3rem; font-size: 1.3rem; }
h3 { margin: 2rem 0 .8rem; font-size: 1.05rem; }
h2 + p { margin: 0 0 1.2rem; max-width: 46rem; color: var(--quiet); }
dl { display: grid; gap: .8rem; margin: 0; }
dl div { padding: .7rem 1rem; border-radius: .6rem; background: var(--card); }
dt { color: var(--quiet); font-size: .85rem; overflow-wrap: anywhere; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
.scores { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.scores dd { font-size: 1.5rem; }
.settings { grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); }
figcaption ul { margin: .6rem 0 0; padding-left: 1.1rem; color: var(--quiet); font-size: .9rem; }
.images small { margin: 0 0 .4rem; }
h3 ~ p { color: var(--quiet); }
"""


def write_report(
    page_path: Path,
    split: str,
    captions: Mapping[str, str],
    references: Captions,
    scores: Mapping[str, float],
    image_folder: Path,
    record: Mapping,
) -> None:
    """Writes the page; an older one gives way.

    `captions` (image name -> caption) of all images of `split`, with their `references` as written
    and their `scores` as of `captioning.evaluation.metrics`; `record`: that of the training as of
    `captioning.training.checkpoints`, whose parts may be missing, and are then left out.
    """

    def card(image_name: str, note: str, headline: str = "") -> str:
        """An image, what the model says of it and what people say. Who hears the page is told by
        people what the image shows."""
        heading = headline and f"<strong>{escape(headline)}</strong>"
        said = "".join(f"<li>{escape(one)}</li>" for one in references[image_name])
        return figure(
            image_folder / image_name,
            page_path,
            references[image_name][0],
            f"{heading}<small>{escape(note)}</small>{escape(captions[image_name])}<ul>{said}</ul>",
        )

    cider = cider_per_image(captions, references)
    confusions = find_confusions(captions, references)
    by_cider = sorted(cider, key=cider.get, reverse=True)

    def cards(image_names: Sequence[str]) -> str:
        return images(
            card(name, f"CIDEr {format_score('CIDEr', cider[name])}") for name in image_names
        )

    sections = [
        section(
            "Scores",
            "Metrics of the coco-caption protocol, times 100; the rest are counts, and a caption "
            "is broken off that ends in a word like “a” or “with”.",
            definitions("scores", {name: format_score(name, scores[name]) for name in scores}),
        ),
        show_training(record.get("history", [])),
        section(
            "The best captions",
            "By CIDEr, which rewards the words of people, and rare words more. Below each caption, "
            "what people say.",
            cards(by_cider[:_SHOWN]),
        ),
        section(
            "The worst captions",
            "By CIDEr again, the worst first. Some are not wrong, but say what nobody else says.",
            cards(by_cider[: -_SHOWN - 1 : -1]),
        ),
        section(
            "What it takes for what",
            "Counted are images where the caption says a word that no reference says, and at least "
            "two references agree on another word of the same group. Words are compared, not "
            f"things: the two may speak of different parts of the image. {_foremost(confusions)}",
            *_confusions(confusions, card),
        ),
    ]
    if "settings" in record:
        sections.append(
            section(
                "Settings",
                "Those of the training; captioning/settings.py says why.",
                definitions("settings", record["settings"]),
            )
        )
    write_page(
        page_path,
        "Report of a training run",
        f"{len(captions):,} images of the {split} split, captioned by the model.",
        f"<main>\n{''.join(sections)}</main>\n",
        _STYLE + TRAINING_STYLE,
    )


def _foremost(by_group: Mapping[str, Sequence[Confusion]]) -> str:
    """A sentence on the most frequent pair of words of all."""
    firsts = [confusions[0] for confusions in by_group.values() if confusions]
    if not firsts:
        return "Nothing was confused."
    one = max(firsts, key=lambda one: len(one.image_names))
    return (
        f"Most often it says “{one.said}” where people say “{one.meant}”: {len(one.image_names)} "
        "times."
    )


def _confusions(by_group: Mapping[str, Sequence[Confusion]], card: Callable[..., str]) -> list[str]:
    """For each group its most frequent pairs of words, with an image each."""
    parts = []
    for group, confusions in by_group.items():
        shown, more = confusions[:_CONFUSIONS_SHOWN], confusions[_CONFUSIONS_SHOWN:]
        parts.append(f"<h3>{escape(group.capitalize())}</h3>\n")
        parts.append(
            images(
                card(
                    one.image_names[0],
                    f"{len(one.image_names)} of the {one.captions} captions that say “{one.said}”",
                    f"“{one.said}” where people say “{one.meant}”",
                )
                for one in shown
            )
            if shown
            else "<p>None.</p>\n"
        )
        if more:
            times = sum(len(one.image_names) for one in more)
            parts.append(f"<p>And {len(more)} rarer pairs, {times} times in all.</p>\n")
    return parts
