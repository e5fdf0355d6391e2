"""Very many names, such as the paths of images, in little memory."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os.path import commonprefix

_BUNDLED = 16  # names; more take less memory, and longer to find one
_SEPARATOR = "\0"  # is in no path
_FEWEST_SLOTS = 8
_FREE = -1  # a slot without a number


class Names(Mapping[str, int]):
    """Name -> its number: 0 for the one that was added first, 1 for the next.

    As a dict would hold them, in order, in a fifth of its memory: names that follow one another,
    as those of a folder do, are bundled into a text in which their common beginning stands once. A
    table finds their numbers by open addressing with linear probing (Knuth, The Art of Computer
    Programming, 6.4, algorithm L).
    """

    def __init__(self, names: Iterable[str] = ()):
        """Adds these names."""
        self._bundles: list[str] = []
        self._last: list[str] = []  # those that do not fill a bundle yet
        self._slots = array("i", [_FREE]) * _FEWEST_SLOTS  # numbers, by the hash of their names
        for name in names:
            self.add(name)

    def __getitem__(self, name: str) -> int:
        number = self._slots[self._slot(name)]
        if number == _FREE:
            raise KeyError(name)
        return number

    def __iter__(self) -> Iterator[str]:
        for bundle in self._bundles:
            yield from _unpack(bundle)
        yield from self._last

    def __len__(self) -> int:
        return _BUNDLED * len(self._bundles) + len(self._last)

    def add(self, name: str) -> bool:
        """Whether the name is new: one that was added before keeps its number. Raises ValueError
        for a name that no file can have, with a zero character in it."""
        if _SEPARATOR in name:
            raise ValueError(f"No file can have the name {name!r}.")
        slot = self._slot(name)
        if self._slots[slot] != _FREE:
            return False
        self._slots[slot] = len(self)
        self._last.append(name)
        if len(self._last) == _BUNDLED:
            self._bundles.append(_pack(self._last))
            self._last = []
        if 2 * len(self) > len(self._slots):  # fuller tables are searched for long
            self._double_slots()
        return True

    def pop(self) -> str:
        """Forgets the name that was added last, and returns it. Raises IndexError if there is
        none."""
        if not self._last:
            self._last = _unpack(self._bundles.pop())
        self._slots[self._slot(self._last[-1])] = _FREE  # nothing was led past what came last
        return self._last.pop()

    def _slot(self, name: str) -> int:
        """Where the number of this name stands, or would stand."""
        slot = hash(name) % len(self._slots)
        while (number := self._slots[slot]) != _FREE and self._name(number) != name:
            slot = (slot + 1) % len(self._slots)
        return slot

    def _name(self, number: int) -> str:
        bundle, place = divmod(number, _BUNDLED)
        if bundle == len(self._bundles):
            return self._last[place]
        beginning, *ends = self._bundles[bundle].split(_SEPARATOR)
        return beginning + ends[place]

    def _double_slots(self) -> None:
        self._slots = array("i", [_FREE]) * (2 * len(self._slots))
        for number, name in enumerate(self):
            self._slots[self._slot(name)] = number


def _pack(names: Sequence[str]) -> str:
    beginning = commonprefix(names)
    return _SEPARATOR.join([beginning, *(name[len(beginning) :] for name in names)])


def _unpack(bundle: str) -> list[str]:
    beginning, *ends = bundle.split(_SEPARATOR)
    return [beginning + end for end in ends]
