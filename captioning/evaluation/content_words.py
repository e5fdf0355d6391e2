"""Scores how many content words of a caption its reference captions support.

Content words are all but the function words below: nouns, verbs, adjectives and numbers, with a few
adverbs. They are compared as stems of lemmas, so that "dogs" supports "dog", "a man sits" supports
"sitting", and "children" supports "child". English only.
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


def content_words(caption: str) -> list[str]:
    """The content words of a tokenised caption, in order, each as the stem of its lemma.

    >>> content_words("two children are sitting on the dog 's beach")
    ['two', 'child', 'sit', 'dog', 'beach']
    """
    return [_stem(word) for word in caption.lower().split() if word not in FUNCTION_WORDS]


def score_content_words(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Scores captions (image name -> tokenised caption) against the tokenised references of the
    same images.

    "supported words" is the share, from 0 to 1, of all content words that occur in a reference of
    their image; 0 without content words. Each reference is left out in turn and the mean taken, so
    that the captions compare with people's, each of which has the others as its references.
    "content words" is their mean number in a caption: it must not fall while the share rises.
    """
    total, supported = 0, 0.0
    for image_name, caption in captions.items():
        words = content_words(caption)
        total += len(words)
        reference_words = [set(content_words(line)) for line in references[image_name]]
        supported += sum(_support(word, reference_words) for word in words)
    return {"supported words": supported / max(total, 1), "content words": total / len(captions)}


def _support(word: str, reference_words: Sequence[set[str]]) -> float:
    """The share of the ways to leave one reference out in which another holds the word."""
    holding = sum(word in words for words in reference_words)
    if holding == 1 and len(reference_words) > 1:
        return 1 - 1 / len(reference_words)
    return float(holding > 0)


@cache
def _stem(word: str) -> str:
    return _stemmer.stemWord(simplemma.lemmatize(word, lang="en").lower())
