"""Captions as text and as word ids.

In: captions as people wrote them. Out: cleaned captions, a vocabulary, lists of word ids.
Knows neither files of captions, nor images, nor Keras.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from captioning.files import load_pickle, save_pickle

# Reserved ids. Their names cannot collide with words: cleaned captions hold no angle brackets.
PADDING, START, END, UNKNOWN = range(4)
RESERVED = ("<padding>", "<start>", "<end>", "<unknown>")

_APOSTROPHES = re.compile(r"['’`]")
_NOT_IN_WORDS = re.compile(r"[^\w\s]|_")

# In a mirror; "right" in another sense than that of a side is rare in captions.
_MIRRORED = {
    "left": "right", "lefthand": "righthand", "leftmost": "rightmost", "lefty": "righty",
}  # fmt: skip
_MIRRORED |= {right: left for left, right in _MIRRORED.items()}


def clean_caption(caption: str) -> str:
    """Lower-case words divided by single blanks.

    Apostrophes are dropped ("dog's" -> "dogs"); all other punctuation divides words, so that none
    is lost in another ("T-shirt" -> "t shirt"). One-letter words and numbers stay.

    >>> clean_caption("A dog-sled, pulled by 2 huskies .")
    'a dog sled pulled by 2 huskies'
    """
    caption = _APOSTROPHES.sub("", unicodedata.normalize("NFC", caption.lower()))
    return " ".join(_NOT_IN_WORDS.sub(_blank_unless_mark, caption).split())


def clean_captions(captions: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Image name -> cleaned captions."""
    return {name: [clean_caption(one) for one in written] for name, written in captions.items()}


def flip_caption(caption: str) -> str:
    """What a cleaned caption would say of its image in a mirror: left and right change places.

    >>> flip_caption("the dog on the left looks right")
    'the dog on the right looks left'
    """
    return " ".join(_MIRRORED.get(word, word) for word in caption.split())


def _blank_unless_mark(found: re.Match) -> str:
    """The signs over and under letters, as in Hindi, belong to words, though not to `\\w`."""
    return found[0] if unicodedata.category(found[0]).startswith("M") else " "


class Vocabulary:
    """Words <-> ids. Ids 0 to 3 are padding, start, end and unknown; words follow from 4."""

    def __init__(self, words: Iterable[str]):
        """`words` in the order of their ids, without the reserved ones."""
        self.words = [*RESERVED, *words]
        self.ids = {word: word_id for word_id, word in enumerate(self.words)}
        if len(self.ids) != len(self.words):
            repeated = [word for word, count in Counter(self.words).items() if count > 1]
            raise ValueError(
                f"A vocabulary wants every word once. Received: {repeated[:5]} more than once. "
                "Build it with Vocabulary.from_captions."
            )

    @classmethod
    def from_captions(cls, captions: Iterable[str], min_word_count: int) -> "Vocabulary":
        """The words seen at least `min_word_count` times, most frequent first, ties by alphabet."""
        counts = Counter(word for caption in captions for word in caption.split())
        kept = [word for word, count in counts.items() if count >= min_word_count]
        return cls(sorted(kept, key=lambda word: (-counts[word], word)))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str) -> list[int]:
        """A cleaned caption as ids, between START and END; words never seen are UNKNOWN."""
        return [START, *(self.ids.get(word, UNKNOWN) for word in caption.split()), END]

    def encode_captions(self, captions: Mapping[str, Sequence[str]]) -> dict[str, list[list[int]]]:
        """Image name -> encoded captions, of image name -> cleaned captions."""
        return {name: [self.encode(caption) for caption in of] for name, of in captions.items()}

    def decode(self, word_ids: Iterable[int]) -> str:
        """The words up to END, without the reserved ids; the inverse of `encode`."""
        words = []
        for word_id in word_ids:
            if word_id == END:
                break
            if word_id >= len(RESERVED):
                words.append(self.words[word_id])
        return " ".join(words)

    @property
    def fingerprint(self) -> str:
        """Equal for two vocabularies exactly if they give every word the same id."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Writes the words as a plain pickled list."""
        save_pickle(path, self.words[len(RESERVED) :])

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Reads what `save` wrote; raises ValueError for anything else."""
        words = load_pickle(path)
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(
                f"{path} should hold a list of words. Received: {type(words).__name__}. "
                "It may come from another project: train again, or restore the file."
            )
        return cls(words)
