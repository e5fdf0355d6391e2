"""Scores captions against reference captions with the field's metrics, and their confidences.

The scores follow the coco-caption protocol (Chen et al., 2015): the Stanford PTB tokenizer splits
the captions into lower-case tokens without punctuation, and the `pycocoevalcap` package scores all
captions as one corpus. A further score is the share of content words that references support.

Confidences are scored against a target that stands for the verdict of a person, which only a few
captions have: a caption is *supported* if more than half of its content words occur in the
reference captions of its image.
"""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain

import numpy as np
import simplemma
import snowballstemmer
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge

from captioning.data.vocabulary import Vocabulary
from captioning.errors import UserError
from captioning.evaluation.ptb_tokenizer import tokenize

# Articles, conjunctions and prepositions: a caption that ends in one has usually lost its end. One
# reference caption in a hundred ends in one, too ("while others look on").
_OPEN_ENDINGS = frozenset(
    "a an the and or but while as that which with without of to from for at in into on onto by "
    "over under through across along near next behind between beside against".split()
)
_COUNTS = ("distinct captions", "distinct words", "broken off")  # written as whole numbers
BINS = 10  # of the calibration error

# Articles, pronouns, prepositions, conjunctions, auxiliaries, and adverbs without content.
_FUNCTION_WORDS = frozenset(
    "a an the this that these those some any each every all both another other others such "
    "i me my you your he him his she her hers it its we us our they them their theirs himself "
    "herself itself themselves who whom whose which what where when why how there here someone "
    "something somebody nothing one's "
    "of in on at by for with without from to into onto upon over under above below through across "
    "along around about against among between behind beside besides beyond near next off out "
    "outside inside up down toward towards during before after within past via like as than per "
    "and or but nor so if while because although though until unless whether "
    "be am is are was were been being have has had having do does did doing done can could will "
    "would shall should may might must 's s t not no "
    "very just only also too then now still again away back together apart".split()
)

_stemmer = snowballstemmer.stemmer("english")


def score_captions(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], meteor: bool = True
) -> dict[str, float]:
    """Scores `captions` (image name -> caption) against `references` (image name -> reference
    captions as written) of the same images.

    Returns BLEU-1 to BLEU-4 (Papineni et al., 2002), ROUGE-L (Lin, 2004) and METEOR (Denkowski and
    Lavie, 2014; only if Java is installed) from 0 to 1, and CIDEr-D (Vedantam et al., 2015; called
    CIDEr, as usual) from 0 to 10. Also returns the number of "distinct captions", of "distinct
    words" in them, and of captions "broken off" after an article, a preposition or a conjunction.
    "supported words" is the share, from 0 to 1, of content words that occur in the references, and
    "content words" their number in a caption: see `score_content_words`.
    CIDEr weights words by their rarity in these references, so score a whole split. Raises
    UserError unless captions and references name the same images.
    """
    candidates, references = _tokenize(captions, references)
    bleu, _ = Bleu(4).compute_score(references, candidates, verbose=0)
    scores = {f"BLEU-{n}": float(score) for n, score in enumerate(bleu, start=1)}
    if meteor and _java_runs():
        scores["METEOR"] = float(Meteor().compute_score(references, candidates)[0])
    scores["ROUGE-L"] = float(Rouge().compute_score(references, candidates)[0])
    scores["CIDEr"] = float(Cider().compute_score(references, candidates)[0])
    lines = {name: line for name, (line,) in candidates.items()}
    scores |= score_content_words(lines, references)
    scores["distinct captions"] = len(set(lines.values()))
    scores["distinct words"] = len({word for line in lines.values() for word in line.split()})
    scores["broken off"] = sum(line.rpartition(" ")[2] in _OPEN_ENDINGS for line in lines.values())
    return scores


def score_content_words(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Scores captions (image name -> tokenised caption) against the tokenised references of the
    same images.

    "supported words" is the share, from 0 to 1, of all content words that occur in a reference of
    their image; 0 if there are none. It is the mean over leaving out each reference in turn, so
    that you can compare it with the share of a reference caption, which has one reference less.
    "content words" is their mean number in a caption. A better model does not raise the share by
    lowering this number.
    """
    total, supported = 0, 0.0
    for image_name, caption in captions.items():
        words = keep_content_words(caption)
        total += len(words)
        reference_words = [set(keep_content_words(line)) for line in references[image_name]]
        supported += sum(_support(word, reference_words) for word in words)
    return {"supported words": supported / max(total, 1), "content words": total / len(captions)}


def keep_content_words(caption: str) -> list[str]:
    """Returns the content words of a tokenised caption in order: nouns, verbs, adjectives,
    numbers and a few adverbs, but no function words. Works for English only.

    Each is the stem of its lemma, so that "dogs" in a reference supports "dog", "sits" supports
    "sitting", and "children" supports "child".

    >>> keep_content_words("two children are sitting on the dog 's beach")
    ['two', 'child', 'sit', 'dog', 'beach']
    """
    return [_stem(word) for word in caption.lower().split() if word not in _FUNCTION_WORDS]


def find_content_words(caption: str) -> list[str]:
    """Returns the content words of a caption as written: see `keep_content_words`."""
    return keep_content_words(_join_tokens(caption))


def find_stems(vocabulary: Vocabulary) -> list[str | None]:
    """Returns the stem of each word id, which "dog" and "dogs" share; None for a reserved id and
    for a word without content."""
    words = (vocabulary.decode([word_id]) for word_id in range(len(vocabulary)))
    return [next(iter(keep_content_words(word)), None) for word in words]


def find_supported(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """Returns whether each of the `captions` (image name -> caption) is supported by the
    `references` of its image: bool (captions,). One without content words is not."""
    supported = []
    for image_name, caption in captions.items():
        words = find_content_words(caption)
        reference_words = set(chain.from_iterable(map(find_content_words, references[image_name])))
        supported.append(2 * sum(word in reference_words for word in words) > len(words))
    return np.array(supported)


def score_confidences(confidences: np.ndarray, supported: np.ndarray) -> dict[str, float]:
    """Scores `confidences` (captions,) from 0 to 1 against `supported` (captions,) bool.

    "confidence AUROC" is the probability that a supported caption has a higher confidence than one
    that is not; it is 0.5, as by chance, if all are supported or none is. "calibration error" is
    the expected one (Guo et al., 2017) with `BINS` bins of equally many captions: the mean
    difference between the confidence of a bin and its share of supported captions.
    """
    from scipy.stats import mannwhitneyu

    positives, negatives = confidences[supported], confidences[~supported]
    auroc = 0.5
    if len(positives) and len(negatives):
        wins = mannwhitneyu(positives, negatives, method="asymptotic").statistic  # of all pairs
        auroc = wins / (len(positives) * len(negatives))
    differences = [
        abs(confidence - share) * number
        for confidence, share, number in find_reliability(confidences, supported)
    ]
    error = sum(differences) / len(confidences)
    return {"confidence AUROC": float(auroc), "calibration error": float(error)}


def find_reliability(
    confidences: np.ndarray, supported: np.ndarray
) -> list[tuple[float, float, int]]:
    """Returns the mean confidence, the share of supported captions and the number of captions in
    each of `BINS` bins, from the lowest confidence to the highest. Leaves out empty bins."""
    bins = np.array_split(np.argsort(confidences, kind="stable"), BINS)
    return [
        (float(confidences[members].mean()), float(supported[members].mean()), len(members))
        for members in bins
        if len(members)
    ]


def compute_cider_per_image(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Returns image name -> CIDEr of its caption, from 0 to 10. Their mean is the CIDEr that
    `score_captions` returns; it raises the same errors."""
    candidates, references = _tokenize(captions, references)
    _, scores = Cider().compute_score(references, candidates)
    return dict(zip(candidates, map(float, scores), strict=True))


def format_scores(scores: Mapping[str, float]) -> str:
    """Writes each score on a line: see `format_score`."""
    return "\n".join(f"{name:<18}{format_score(name, scores[name]):>8}" for name in scores)


def format_score(name: str, score: float) -> str:
    """Writes a metric times 100, as papers do; a count as it is; a mean of counts with one
    decimal."""
    if name in _COUNTS:
        return f"{score:,}"
    return f"{score:.1f}" if name == "content words" else f"{score * 100:.1f}"


def _java_runs() -> bool:
    """Whether Java is installed and works. On some systems `java` only prints where to get Java,
    and the METEOR package would wait for its answer forever."""
    java = shutil.which("java")
    return (
        java is not None and subprocess.run([java, "-version"], capture_output=True).returncode == 0
    )


def _tokenize(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Returns captions and references as `pycocoevalcap` takes them: image name -> lines of tokens
    joined by spaces, with the images in the same order."""
    if captions.keys() != references.keys() or not captions:
        unmatched = sorted(captions.keys() ^ references.keys())
        raise UserError(
            "Expected one caption and its references for each image, got captions of "
            f"{len(captions)} and references of {len(references)} images; {len(unmatched)} are in "
            f"only one of them, such as {unmatched[:3]}. Caption the whole split."
        )
    return (
        {name: [_join_tokens(caption)] for name, caption in captions.items()},
        {name: [_join_tokens(caption) for caption in references[name]] for name in captions},
    )


def _join_tokens(caption: str) -> str:
    return " ".join(tokenize(caption))


def _support(word: str, reference_words: Sequence[set[str]]) -> float:
    """The mean, over leaving out each reference, of whether another reference contains the word."""
    count = sum(word in words for words in reference_words)
    if count == 1 and len(reference_words) > 1:
        return 1 - 1 / len(reference_words)
    return float(count > 0)


@cache
def _stem(word: str) -> str:
    return _stemmer.stemWord(simplemma.lemmatize(word, lang="en").lower())
