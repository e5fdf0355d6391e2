"""Writes and reads the two pickles of a root folder: a list of words, and a dict of image name ->
vector. Files from elsewhere are not trusted.

A pickle is a program that can call any function, copy itself without end or nest its values until
the interpreter crashes. This module never runs it. It reads the opcodes of protocols 3 to 5 that
write these two values, and refuses the file at the first other one.
"""

import pickle
import re
from collections.abc import Iterator
from io import BytesIO
from math import prod
from pathlib import Path
from pickletools import genops
from typing import Any

import numpy as np

from captioning.errors import UserError
from captioning.files import write_atomically

# Protocol 5 writes an array without a second copy in memory.
PICKLE_PROTOCOL = 5

# A million words, and the vectors of half a million images.
MAX_WORDS_BYTES = 10**7
MAX_VECTORS_BYTES = 4 * 10**9

# Words are printed to terminals: they contain no spaces, control characters or surrogates.
_WORD = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+")

# A file has 2 opcodes a word and 30 a vector, after the first. One with many more is refused before
# they fill the memory. Items reach the dict in batches of 1,000.
_OPCODES_PER_WORD = 10
_OPCODES_PER_VECTOR = 100
_ITEMS_PER_BATCH = 1000

# Vectors may take this many times the bytes of the file: several names may have the same vector.
_MAX_GROWTH = 10

_NO_VALUE = {"PROTO", "FRAME"}
_TEXT = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_LIST = {"MARK", "APPEND", "APPENDS", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"}
_VALUE = _TEXT | {
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8", "BININT", "BININT1", "BININT2",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}  # opcode -> length

_MAX_TUPLE = 8  # the state of a type
_FLOATS = ("f2", "f4", "f8")


def save_pickle(path: Path, value: list[str] | dict[str, np.ndarray]) -> None:
    """Writes words or vectors for the functions below."""
    with write_atomically(path) as file:
        pickle.dump(value, file, protocol=PICKLE_PROTOCOL)


def load_words(path: Path) -> list[str]:
    """Reads a pickled list of words. Raises FileNotFoundError if the file is missing, UserError if
    it is damaged or contains anything else."""
    try:
        opcodes = _read_opcodes(path, MAX_WORDS_BYTES, "EMPTY_LIST")
        words: list[str] = []
        for number, (name, argument) in enumerate(opcodes):
            if name in _TEXT and _WORD.fullmatch(argument):
                words.append(argument)
            elif name not in _LIST or number > _OPCODES_PER_WORD * (1 + len(words)):
                raise _unexpected(name, argument)
    except ValueError as error:
        raise UserError(
            f"Expected a pickled list of words in {path}, got another file ({error}). Restore the "
            "file (this one may come from another project), or train again."
        ) from error
    return words


def load_vectors(path: Path) -> dict[str, np.ndarray]:
    """Reads a pickled dict: image name -> float32 (width,), from finite arrays (width,) or (1,
    width) of equal width, as any version of numpy writes them. Raises FileNotFoundError if the file
    is missing, UserError if it is damaged or contains anything else."""
    try:
        arrays = _run(_read_opcodes(path, MAX_VECTORS_BYTES, "EMPTY_DICT"))
        return _as_vectors(arrays, max_bytes=_MAX_GROWTH * path.stat().st_size)
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(
            f"Expected a pickled dict of image name -> vector of floats in {path}, got another "
            f"file ({error}). Delete it and run `captioning features --pooled`."
        ) from error


def _read_opcodes(path: Path, max_bytes: int, first: str) -> Iterator[tuple[str, Any]]:
    """Yields name and argument of the opcodes after the `first` one, up to the last, STOP. Raises
    ValueError for a larger file, another first opcode or damaged ones."""
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}. Name its folder, or run the step that writes it: see `captioning "
            "--help`."
        )
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"it has {size:,} bytes, more than {max_bytes:,}")
    opcodes = (
        (opcode.name, argument)
        for opcode, argument, _ in genops(BytesIO(path.read_bytes()))
        if opcode.name not in _NO_VALUE
    )
    name, argument = next(opcodes)
    if name != first:
        raise _unexpected(name, argument)
    return opcodes


def _as_vectors(arrays: dict[str, np.ndarray], max_bytes: int) -> dict[str, np.ndarray]:
    shapes = {array.shape for array in arrays.values()}
    widths = {array.size for array in arrays.values()}
    if 0 in widths or any(shape[-1:] != (prod(shape),) for shape in shapes):
        raise ValueError(f"it contains arrays of the shapes {str(shapes):.80}")
    if len(widths) > 1:
        raise ValueError(f"it contains vectors of {len(widths)} widths")
    if sum(array.nbytes for array in arrays.values()) > max_bytes:
        raise ValueError("its vectors share their numbers")
    with np.errstate(over="ignore"):  # which leaves infinity
        vectors = {name: array.ravel().astype("float32") for name, array in arrays.items()}
    if not all(np.isfinite(vector).all() for vector in vectors.values()):
        raise ValueError("it contains numbers that are not finite")
    return vectors


def _run(opcodes: Iterator[tuple[str, Any]]) -> dict[str, np.ndarray]:
    """Returns the dict of arrays that the opcodes build. The other values on its stack are texts,
    bytes, numbers, flat tuples of these, tuples of such tuples, and the stand-ins below."""
    arrays: dict[str, np.ndarray] = {}
    stack: list[Any] = [arrays]
    marks: list[int] = []  # lengths of the stack
    memo: dict[int, Any] = {}

    def pop(start: int) -> list[Any]:
        popped = stack[start:]
        del stack[start:]
        return popped

    for number, (name, argument) in enumerate(opcodes):
        if number > _OPCODES_PER_VECTOR * (_ITEMS_PER_BATCH + len(arrays)):
            raise _unexpected(name, argument)
        if name in _VALUE:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("TUPLE", *_TUPLES):
            stack.append(_flat(pop(-_TUPLES[name] if name in _TUPLES else marks.pop())))
        elif name == "GLOBAL":
            stack.append(_checked_name(argument))
        elif name == "STACK_GLOBAL":
            stack.append(_checked_name(" ".join(pop(-2))))
        elif name == "REDUCE":
            function, arguments = pop(-2)
            stack.append(_STAND_INS[function](*_require(arguments, tuple)))
        elif name == "BUILD":
            (state,) = pop(-1)
            _require(stack[-1], _Dtype, _Array).set_state(*_require(state, tuple))
        elif name in ("SETITEM", "SETITEMS"):
            items = pop(-2 if name == "SETITEM" else marks.pop())
            for image_name, array in zip(items[::2], items[1::2], strict=True):
                value = _require(array, _Array).value
                arrays[_require(image_name, str)] = _require(value, np.ndarray)
        elif name != "STOP":
            raise _unexpected(name, argument)
    return arrays


# Stand-ins for the functions and classes that numpy names in its pickles. Their names differ
# between numpy 1 and 2, and numpy's own classes accept any state: a forged dtype reads beyond its
# array.


class _Dtype:
    def __init__(self, code: str, *_flags: bool):
        if code not in _FLOATS:
            raise ValueError(f"it contains values of type {code!r:.80}")
        self.value = np.dtype(code)

    def set_state(self, _version: int, byte_order: str, *_fields: Any) -> None:
        self.value = self.value.newbyteorder(byte_order)


class _Array:
    value: np.ndarray | None = None

    def __init__(self, *_type_and_shape: Any):
        """Has no value until `set_state` or `_filled` sets it."""

    def set_state(
        self, _version: int, shape: tuple, dtype: _Dtype, _is_fortran: bool, content: bytes
    ) -> None:
        # A view of the content, so that an array takes no memory. Vectors have no order of axes.
        self.value = np.frombuffer(content, _require(dtype, _Dtype).value).reshape(shape)


def _filled(content: bytes, dtype: _Dtype, shape: tuple, _order: str) -> _Array:
    array = _Array()
    array.set_state(0, shape, dtype, False, content)
    return array


_STAND_INS = {"numpy dtype": _Dtype, "numpy ndarray": _Array}
for _core in ("numpy.core", "numpy._core"):  # numpy 1, numpy 2
    _STAND_INS[f"{_core}.multiarray _reconstruct"] = _Array
    _STAND_INS[f"{_core}.numeric _frombuffer"] = _filled


def _checked_name(name: str) -> str:
    if name not in _STAND_INS:
        raise ValueError(f"it names {name[:80]!r}")
    return name


def _flat(items: list[Any]) -> tuple:
    """Refuses what would nest deeper with every copy, or take long as the arguments of a call."""
    for item in items:
        if isinstance(item, tuple) and any(isinstance(part, tuple) for part in item):
            raise ValueError("it contains nested tuples")
    if len(items) > _MAX_TUPLE:
        raise ValueError(f"it contains a tuple of {len(items):,}")
    return tuple(items)


def _require(value: Any, *types: type) -> Any:
    if not isinstance(value, types):
        raise TypeError(f"it contains {type(value).__name__} where another type belongs")
    return value


def _unexpected(name: str, argument: Any) -> ValueError:
    if isinstance(argument, (str, bytes, bytearray)):
        argument = argument[:80]
    text = "" if argument is None else f" {argument!r}"
    return ValueError(f"it contains the opcode {name}{text:.80}")
