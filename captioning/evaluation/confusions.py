"""Finds words that captions use where the reference captions agree on another.

Words are compared, not things: "red" for a shirt counts as wrong if the references mention only a
brown dog. Treat the counts as hints, and check the images.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from captioning.data.vocabulary import clean_caption

# Words of a group mostly exclude each other; other forms and near synonyms follow the word. Words
# that leave it open ("child", "person", "several") are in no group, nor is "one", which is mostly a
# pronoun.
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

_AGREEMENT = 2  # references: a single one may itself be wrong, or describe something else


@dataclass(frozen=True)
class Confusion:
    """A word that was `said` in the captions of `image_names`, whose references agree on another
    word, `meant`; `captions` is the number of captions that contain the word at all."""

    said: str
    meant: str
    image_names: tuple[str, ...]
    captions: int


def find_confusions(
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    groups: Mapping[str, Sequence[str]] = GROUPS,
) -> dict[str, list[Confusion]]:
    """Group -> its confusions, most frequent first, ties by alphabet.

    A word in `captions` (image name -> caption) is wrong if no reference of the image contains it;
    another word of its group is meant if two or more references contain that one and the caption
    does not. Each image counts once for a pair of words.
    """
    return {group: _confusions(captions, references, words) for group, words in groups.items()}


def _confusions(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], words: Sequence[str]
) -> list[Confusion]:
    word_of = {form: forms.split()[0] for forms in words for form in forms.split()}

    def group_words(caption: str) -> set[str]:
        return {word_of[form] for form in clean_caption(caption).split() if form in word_of}

    captions_with: Counter[str] = Counter()
    image_names_of = defaultdict(list)
    for image_name, caption in captions.items():
        said = group_words(caption)
        captions_with.update(said)
        in_references = Counter(
            word for reference in references[image_name] for word in group_words(reference)
        )
        agreed = {word for word, count in in_references.items() if count >= _AGREEMENT}
        for wrong in said - in_references.keys():
            for meant in agreed - said:
                image_names_of[wrong, meant].append(image_name)
    return sorted(
        (
            Confusion(said, meant, tuple(image_names), captions_with[said])
            for (said, meant), image_names in image_names_of.items()
        ),
        key=lambda confusion: (-len(confusion.image_names), confusion.said, confusion.meant),
    )
