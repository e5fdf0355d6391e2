"""Finds words that generated captions contain where the reference captions agree on another word.

This module compares words, not objects: "red" for a shirt counts as wrong if the references mention
only a brown dog. Treat the counts as hints, and check the images.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from captioning.data.vocabulary import clean_caption

# The words of a group usually exclude each other. A word is followed by its other forms and near
# synonyms. Words that leave the choice open ("child", "person", "several") are in no group, nor is
# "one", which is usually a pronoun.
GROUPS = {
    "people": ("man men guy guys", "woman women lady ladies", "boy boys", "girl girls"),
    "counts": ("two 2", "three 3", "four 4", "five 5", "six 6"),
    "colours": (
        "black", "white", "brown tan", "grey gray", "red", "orange", "yellow", "green", "blue",
        "purple", "pink",
    ),
    "animals": (
        "dog dogs puppy puppies", "cat cats kitten kittens", "horse horses", "cow cows bull bulls",
        "bird birds", "sheep", "goat goats", "bear bears", "elephant elephants",
    ),
}  # fmt: skip

_MIN_REFERENCES = 2  # that agree: a single one may be wrong, or describe something else


@dataclass(frozen=True)
class Confusion:
    """A `predicted` word in the captions of `image_names`, whose references agree on the `expected`
    word instead. `caption_count` captions contain the predicted word, rightly or wrongly."""

    predicted: str
    expected: str
    image_names: tuple[str, ...]
    caption_count: int


def find_confusions(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, list[Confusion]]:
    """Returns group -> its confusions, the most frequent first, equally frequent ones in
    alphabetical order.

    `captions`: image name -> generated caption; `references`: image name -> reference captions as
    written. A word is wrong if no reference of the image contains it. Another word of its group is
    expected if at least two references contain it and the caption does not. Each image counts once
    for a pair of words.
    """
    return {group: _find_in_group(captions, references, words) for group, words in GROUPS.items()}


def _find_in_group(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], words: Sequence[str]
) -> list[Confusion]:
    word_by_form = {form: forms.split()[0] for forms in words for form in forms.split()}

    def group_words(caption: str) -> set[str]:
        forms = clean_caption(caption).split()
        return {word_by_form[form] for form in forms if form in word_by_form}

    caption_counts: Counter[str] = Counter()
    image_names_by_pair = defaultdict(list)
    for image_name, caption in captions.items():
        caption_words = group_words(caption)
        caption_counts.update(caption_words)
        reference_counts = Counter(
            word for reference in references[image_name] for word in group_words(reference)
        )
        agreed = {word for word, count in reference_counts.items() if count >= _MIN_REFERENCES}
        for predicted in caption_words - reference_counts.keys():
            for expected in agreed - caption_words:
                image_names_by_pair[predicted, expected].append(image_name)
    confusions = [
        Confusion(predicted, expected, tuple(image_names), caption_counts[predicted])
        for (predicted, expected), image_names in image_names_by_pair.items()
    ]
    return sorted(confusions, key=lambda c: (-len(c.image_names), c.predicted, c.expected))
