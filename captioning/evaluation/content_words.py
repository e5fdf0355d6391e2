"""Scores how many content words of a caption occur in its reference captions.

Content words are all words but the function words below: nouns, verbs, adjectives, numbers and a
few adverbs. This module compares the stems of their lemmas, so that "dogs" in a reference supports
"dog", "sits" supports "sitting", and "children" supports "child". It works for English only.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import simplemma
import snowballstemmer

# Articles, pronouns, prepositions, conjunctions, auxiliaries, and adverbs without content.
FUNCTION_WORDS = frozenset(
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


def find_content_words(caption: str) -> list[str]:
    """Returns the content words of a tokenised caption in order, each as the stem of its lemma.

    >>> find_content_words("two children are sitting on the dog 's beach")
    ['two', 'child', 'sit', 'dog', 'beach']
    """
    return [_stem(word) for word in caption.lower().split() if word not in FUNCTION_WORDS]


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
        words = find_content_words(caption)
        total += len(words)
        reference_words = [set(find_content_words(line)) for line in references[image_name]]
        supported += sum(_support(word, reference_words) for word in words)
    return {"supported words": supported / max(total, 1), "content words": total / len(captions)}


def _support(word: str, reference_words: Sequence[set[str]]) -> float:
    """The mean, over leaving out each reference, of whether another reference contains the word."""
    count = sum(word in words for words in reference_words)
    if count == 1 and len(reference_words) > 1:
        return 1 - 1 / len(reference_words)
    return float(count > 0)


@cache
def _stem(word: str) -> str:
    return _stemmer.stemWord(simplemma.lemmatize(word, lang="en").lower())
