"""Scores captions against reference captions with the field's metrics.

The coco-caption protocol (Chen et al., 2015): tokens of the Stanford PTB tokeniser, lower case,
punctuation removed, corpus-level scores by the `pycocoevalcap` package. The start and end tokens
are never scored, since captions do not contain them.
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

# Articles, conjunctions and prepositions: a caption that ends in one has mostly lost its end. Of
# the reference captions one in a hundred ends so as well ("while others look on").
_OPEN_ENDED = frozenset(
    "a an the and or but while as that which with without of to from for at in into on onto by "
    "over under through across along near next behind between beside against".split()
)
COUNTS = ("distinct captions", "distinct words", "broken off")  # the scores that are no shares


def score_captions(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], meteor: bool = True
) -> dict[str, float]:
    """Scores one caption an image against the reference captions, as written, of the same images.

    Returns BLEU-1 to BLEU-4 (Papineni et al., 2002), ROUGE-L (Lin, 2004) and METEOR (Denkowski and
    Lavie, 2014; only where Java is installed) from 0 to 1, and CIDEr (Vedantam et al., 2015; its
    CIDEr-D form, as usual) from 0 to 10; also the number of "distinct captions", of "distinct
    words" in them, and of captions "broken off" after an article, a preposition or a conjunction.
    CIDEr weights words by their rarity in these references, so score a whole split. Raises
    ValueError unless both name the same images.
    """
    candidates, references = _tokenize(captions, references)
    bleu, _ = Bleu(4).compute_score(references, candidates, verbose=0)
    scores = {f"BLEU-{n}": float(score) for n, score in enumerate(bleu, start=1)}
    if meteor and _java_runs():
        scores["METEOR"] = float(Meteor().compute_score(references, candidates)[0])
    scores["ROUGE-L"] = float(Rouge().compute_score(references, candidates)[0])
    scores["CIDEr"] = float(Cider().compute_score(references, candidates)[0])
    lines = [line for (line,) in candidates.values()]
    scores["distinct captions"] = len(set(lines))
    scores["distinct words"] = len({word for line in lines for word in line.split()})
    scores["broken off"] = sum(line.rpartition(" ")[2] in _OPEN_ENDED for line in lines)
    return scores


def cider_per_image(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Image name -> CIDEr of its caption, from 0 to 10; their mean is that of `score_captions`."""
    candidates, references = _tokenize(captions, references)
    _, scores = Cider().compute_score(references, candidates)
    return dict(zip(candidates, map(float, scores), strict=True))


def save_scores(path: Path, split: str, beam_width: int, scores: Mapping[str, float]) -> None:
    """Writes the scores as JSON, with the split and the beam width that they belong to."""
    with write_atomically(path, "w") as file:
        json.dump({"split": split, "beam width": beam_width, **scores}, file, indent=1)


def format_scores(scores: Mapping[str, float]) -> str:
    """One line per score; see `format_score`."""
    return "\n".join(f"{name:<18}{format_score(name, scores[name]):>8}" for name in scores)


def format_score(name: str, score: float) -> str:
    """Metrics times 100, as papers print them; counts as they are."""
    return f"{score:,}" if name in COUNTS else f"{score * 100:.1f}"


def _java_runs() -> bool:
    """Whether Java is installed and works. On some systems `java` only prints where to get it, and
    the METEOR package would wait for that one forever."""
    java = shutil.which("java")
    return (
        java is not None and subprocess.run([java, "-version"], capture_output=True).returncode == 0
    )


def _tokenize(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Captions and references as `pycocoevalcap` takes them: lines of tokens, in the same order."""
    if captions.keys() != references.keys() or not captions:
        unmatched = sorted(captions.keys() ^ references.keys())
        raise ValueError(
            "Expected one caption and its references for each image, got captions of "
            f"{len(captions)} and references of {len(references)} images; {len(unmatched)} are in "
            f"only one of the two, such as {unmatched[:3]}. Caption the whole split."
        )
    return (
        {name: [_tokenized_line(caption)] for name, caption in captions.items()},
        {name: [_tokenized_line(caption) for caption in references[name]] for name in captions},
    )


def _tokenized_line(caption: str) -> str:
    return " ".join(tokenize(caption))
