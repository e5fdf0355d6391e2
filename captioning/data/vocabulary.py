"""Captions as text and as word ids: cleans reference captions, builds the vocabulary,
and converts cleaned captions to lists of word ids and back."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from captioning.data.compact_captions import CompactCaptions
from captioning.data.pickles import load_words, save_pickle
from captioning.errors import UserError

# Reserved ids. Their names are never words: cleaned captions contain no angle brackets.
PADDING, START, END, UNKNOWN = range(4)
RESERVED = ("<padding>", "<start>", "<end>", "<unknown>")

# Characters that are not shown: variation selectors, soft hyphens, marks of direction and fillers.
# Not the zero-width space, which separates words, nor the joiners.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180b-\u180f\u200e\u200f\u202a-\u202e\u2060-\u206f\u20dd-\u20e4"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
_JOINERS = "\u200c\u200d"  # they shape letters of Persian, Hindi or Sinhala, inside words

_APOSTROPHES = "['’`\u02bc]"
# Words that French and Italian shorten before a vowel; English has no such words.
_ELISION = re.compile(
    rf"(?<![\w'’`])([cdjlmnst]|(?:jus|lors|puis|quoi)?qu|(?:da|de|ne|su|a)ll|un){_APOSTROPHES}"
    "(?=[aeiouyhàáâäæèéêëìíîïòóôöœùúûü])"
)
_ANY_APOSTROPHE = re.compile(_APOSTROPHES)
_NOT_IN_WORDS = re.compile(r"[^\w\s]|_")
_ANY_LETTER = re.compile(r"\w")

# Thai and Lao, Burmese, Khmer, Japanese and Chinese, which put no spaces between words.
_UNSPACED = re.compile(
    "[\u0e01-\u0eff\u1000-\u109f\u1780-\u17d3\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
_MOST_LETTERS = 5  # of a word of these languages, on average


def clean_caption(caption: str) -> str:
    """Returns the caption as lower-case words separated by single spaces.

    Drops apostrophes ("dog's" -> "dogs"), but separates the short words of French and Italian
    ("l'homme" -> "l homme"). Replaces all other punctuation by spaces ("T-shirt" -> "t shirt").
    Drops characters that are not shown. Keeps one-letter words and numbers.

    >>> clean_caption("A dog-sled, pulled by 2 huskies .")
    'a dog sled pulled by 2 huskies'
    """
    composed = unicodedata.normalize("NFC", _INVISIBLE.sub("", caption))
    lower = unicodedata.normalize("NFC", composed.replace("İ", "i").lower())
    joined = _ANY_APOSTROPHE.sub("", _ELISION.sub(r"\1 ", lower))
    words = _NOT_IN_WORDS.sub(_space_unless_in_word, joined).split()
    return " ".join(word for word in words if _ANY_LETTER.search(word))


def has_spaces(caption: str) -> bool:
    """Returns whether the words of a cleaned caption are separated: False for a caption in Chinese,
    Japanese, Thai, Burmese or Khmer as these languages are written."""
    words = [word for word in caption.split() if _UNSPACED.search(word)]
    letters = sum(letter.isalpha() for word in words for letter in word)
    return letters <= _MOST_LETTERS * len(words)


def clean_captions(captions: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Returns image name -> cleaned captions, from image name -> captions as written."""
    return {
        image_name: [clean_caption(caption) for caption in image_captions]
        for image_name, image_captions in captions.items()
    }


def _space_unless_in_word(match: re.Match) -> str:
    """Keeps marks above and below letters, as in Hindi, and joiners between letters and marks: they
    belong to words, but not to `\\w`."""
    character, text = match[0], match.string
    if _is_mark(character):
        return character
    if character in _JOINERS:
        neighbours = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
        is_inside = all(neighbour.isalnum() or _is_mark(neighbour) for neighbour in neighbours)
        return character if is_inside else ""
    return " "


def _is_mark(character: str) -> bool:
    return character != "" and unicodedata.category(character).startswith("M")


class Vocabulary:
    """Words <-> ids. Ids 0 to 3 are padding, start, end and unknown; the words follow from 4."""

    def __init__(self, words: Iterable[str]):
        """`words` are in the order of their ids, without the reserved ones. Raises UserError if a
        word occurs twice."""
        self.words = [*RESERVED, *words]
        self.ids = {word: word_id for word_id, word in enumerate(self.words)}
        if len(self.ids) != len(self.words):
            repeated = [word for word, count in Counter(self.words).items() if count > 1]
            raise UserError(
                f"Expected every word of a vocabulary once, got {repeated[:5]} more than once. "
                "Build the vocabulary with Vocabulary.from_captions."
            )

    @classmethod
    def from_captions(cls, captions: Iterable[str], min_word_count: int) -> "Vocabulary":
        """Builds the vocabulary of the words that occur at least `min_word_count` times in cleaned
        captions: the most frequent first, equally frequent ones in alphabetical order."""
        counts = Counter(word for caption in captions for word in caption.split())
        kept = [word for word, count in counts.items() if count >= min_word_count]
        return cls(sorted(kept, key=lambda word: (-counts[word], word)))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str) -> list[int]:
        """Returns the ids of a cleaned caption between START and END; words that are not in the
        vocabulary become UNKNOWN."""
        return [START, *(self.ids.get(word, UNKNOWN) for word in caption.split()), END]

    def encode_captions(self, captions: Mapping[str, Iterable[str]]) -> CompactCaptions:
        """Returns image name -> encoded captions, from image name -> cleaned captions."""
        return CompactCaptions(
            (image_name, map(self.encode, image_captions))
            for image_name, image_captions in captions.items()
        )

    def decode(self, word_ids: Iterable[int]) -> str:
        """Returns the words up to END, without reserved ids: the inverse of `encode`."""
        words = []
        for word_id in word_ids:
            if word_id == END:
                break
            if word_id >= len(RESERVED):
                words.append(self.words[word_id])
        return " ".join(words)

    @property
    def rarities(self) -> np.ndarray:
        """How rare each word is, as the logarithm of 1 + its rank: float (len(self),), 0 for
        reserved ids. The most frequent words come first, and by Zipf's law the inverse document
        frequency of a word grows with this logarithm."""
        return np.log(np.maximum(np.arange(len(self)) - len(RESERVED) + 2, 1))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits, equal for vocabularies with the same words and ids."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Writes the words as a plain pickled list."""
        save_pickle(path, self.words[len(RESERVED) :])

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Reads a file written by `save`. Raises FileNotFoundError if it is missing, UserError for
        other content."""
        return cls(load_words(path))
