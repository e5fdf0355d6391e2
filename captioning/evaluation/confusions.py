"""Captions and references in, the words that a model says where people say another out.

Words are compared, not things: who says "red" of a shirt where people speak only of a brown dog is
counted as well. Read the counts as a hint where to look, and look at the images.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from captioning.data.vocabulary import clean_caption

# Words of a group exclude each other, mostly; forms and near synonyms follow their word. Words that
# leave it open ("child", "person", "several") are in no group: to say them is no confusion. Nor is
# "one", which is a pronoun more often than a count.
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

_AGREEING = 2  # references: one alone may have seen something else, or be wrong


@dataclass(frozen=True)
class Confusion:
    """A word that was `said` of the images `image_names` where people agree on another, `meant`;
    `captions` is how many captions say the word at all."""

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

    `captions` (image name -> caption) say a word wrongly if no reference of the image says it, and
    mean another word of its group if two references or more say that one and the caption does not.
    An image counts once for a pair of words; of an image with a single reference nothing is known.
    """
    return {group: _confusions(captions, references, words) for group, words in groups.items()}


def _confusions(captions: Mapping, references: Mapping, words: Sequence[str]) -> list[Confusion]:
    word_of = {form: forms.split()[0] for forms in words for form in forms.split()}

    def named_in(caption: str) -> set[str]:
        return {word_of[form] for form in clean_caption(caption).split() if form in word_of}

    said_in: Counter = Counter()
    images_of = defaultdict(list)
    for image_name, caption in captions.items():
        said = named_in(caption)
        said_in.update(said)
        by_people = Counter(word for one in references[image_name] for word in named_in(one))
        agreed = {word for word, count in by_people.items() if count >= _AGREEING}
        for wrong in said - by_people.keys():
            for meant in agreed - said:
                images_of[wrong, meant].append(image_name)
    return sorted(
        (
            Confusion(said, meant, tuple(image_names), said_in[said])
            for (said, meant), image_names in images_of.items()
        ),
        key=lambda one: (-len(one.image_names), one.said, one.meant),
    )
