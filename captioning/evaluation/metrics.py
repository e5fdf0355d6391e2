"""Captions and references in, the field's scores out.

The coco-caption protocol (Chen et al., 2015): tokens of the Stanford PTB tokeniser, lower case,
punctuation removed, corpus-level scores by the `pycocoevalcap` package. Start and end are never
scored, since captions do not hold them.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge

from captioning.evaluation.ptb_tokenizer import tokenize
from captioning.files import write_atomically

# Articles, conjunctions and prepositions: a caption that ends in one has mostly lost its end,
# though of what people wrote one in a hundred does too ("while others look on").
_OPEN = frozenset(
    "a an the and or but while as that which with without of to from for at in into on onto by "
    "over under through across along near next behind between beside against".split()
)
COUNTS = ("distinct captions", "distinct words", "broken off")  # of captions or words, not shares


def score_captions(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], meteor: bool = True
) -> dict[str, float]:
    """Scores of one caption an image against the references of the same images.

    `references` are as people wrote them. Returns BLEU-1 to BLEU-4 (Papineni et al., 2002), ROUGE-L
    (Lin, 2004) and METEOR (Denkowski and Lavie, 2014) from 0 to 1, CIDEr (Vedantam et al., 2015;
    its CIDEr-D form, as everywhere) from 0 to 10, METEOR only where Java is installed; and what
    these do not show: the number of `distinct captions`, of `distinct words` in them, and of
    captions `broken off` after an article, a preposition or a conjunction. CIDEr
    weighs words by how rare they are in these very references, so it wants a whole split. Raises
    ValueError unless both name the same images.
    """
    candidates, references = _tokenized(captions, references)
    bleu, _ = Bleu(4).compute_score(references, candidates, verbose=0)
    scores = {f"BLEU-{n}": float(score) for n, score in enumerate(bleu, start=1)}
    if meteor and _java_runs():
        scores["METEOR"] = float(Meteor().compute_score(references, candidates)[0])
    scores["ROUGE-L"] = float(Rouge().compute_score(references, candidates)[0])
    scores["CIDEr"] = float(Cider().compute_score(references, candidates)[0])
    lines = [line for (line,) in candidates.values()]
    scores["distinct captions"] = len(set(lines))
    scores["distinct words"] = len({word for line in lines for word in line.split()})
    scores["broken off"] = sum(line.rpartition(" ")[2] in _OPEN for line in lines)
    return scores


def cider_per_image(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Image name -> CIDEr of its caption; see `score_captions`, which gives their mean."""
    candidates, references = _tokenized(captions, references)
    _, each = Cider().compute_score(references, candidates)
    return dict(zip(candidates, map(float, each), strict=True))


def save_scores(path: Path, split: str, beam_width: int, scores: Mapping[str, float]) -> None:
    """Writes the scores of a split as JSON, and how its captions were searched for."""
    with write_atomically(path, "w") as file:
        json.dump({"split": split, "beam width": beam_width, **scores}, file, indent=1)


def format_scores(scores: Mapping[str, float]) -> str:
    """A line a score; see `format_score`."""
    return "\n".join(f"{name:<18}{format_score(name, scores[name]):>8}" for name in scores)


def format_score(name: str, score: float) -> str:
    """Metrics times 100 as in papers, counts as they are."""
    return f"{score:,}" if name in COUNTS else f"{score * 100:.1f}"


def _java_runs() -> bool:
    """Whether Java is there and works: some systems have a `java` that only tells where to get it,
    and the METEOR package waits for such a one for ever."""
    java = shutil.which("java")
    return (
        java is not None and subprocess.run([java, "-version"], capture_output=True).returncode == 0
    )


def _tokenized(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Captions and references in the form of `pycocoevalcap`: lines of tokens, in one order."""
    if captions.keys() != references.keys() or not captions:
        odd = sorted(captions.keys() ^ references.keys())
        raise ValueError(
            "Wanted one caption and some references for each image. Received: "
            f"{len(captions)} captioned and {len(references)} referenced images; "
            f"{len(odd)} of them in only one, such as {odd[:3]}. Caption the whole split."
        )
    return (
        {name: [_line(caption)] for name, caption in captions.items()},
        {name: [_line(one) for one in references[name]] for name in captions},
    )


def _line(caption: str) -> str:
    return " ".join(tokenize(caption))
