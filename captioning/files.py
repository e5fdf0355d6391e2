"""Paths written whole or not at all, text read as text, and pickles read without trusting them.

In: paths and values. Out: the same values, or a built-in exception that says what to do.
Not about: what the files mean.
"""

import pickle
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

# Protocol 5 writes and reads an array without a second copy in memory, which earlier ones make.
PICKLE_PROTOCOL = 5

PLAIN_BUILTINS = "bool bytearray bytes complex dict float frozenset int list set str tuple".split()

# Booleans, integers, floats, complex numbers, bytes and text. Not objects (they hold pointers)
# and not records (they may hold objects).
PLAIN_DTYPE_KINDS = "biufcSU"


@contextmanager
def write_atomically(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Yield a handle, "wb" or "w" (utf-8), whose content becomes `path` when the block ends well.

    The content goes to a neighbour first, so that readers meet the old file or the new one, never
    half of one. When the block raises, the neighbour is removed and the old file stays.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f'wanted mode "wb" or "w", which write a whole file. Received: {mode!r}')
    text_format = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    neighbour = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    with _becoming(path, neighbour), neighbour.open(mode.replace("w", "x"), **text_format) as file:
        yield file


@contextmanager
def replace_when_written(path: Path) -> Iterator[Path]:
    """Yield the path of a neighbour whose name ends alike, for a library to write; it becomes
    `path` when the block ends well, as in `write_atomically`. What a killed run left there is
    written over."""
    neighbour = path.with_name(f".saving-{path.name}")
    with _becoming(path, neighbour):
        yield neighbour


@contextmanager
def _becoming(path: Path, neighbour: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
        neighbour.replace(path)
    except BaseException:  # Ctrl-C too must leave nothing behind
        neighbour.unlink(missing_ok=True)
        raise


def read_text(path: Path, otherwise: str, characters: int = -1) -> str:
    """A text file, or its first so many characters: UTF-8, a byte order mark left out, every end of
    a line as "\\n". `otherwise` says what to do where there is no such file."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(characters)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no {path}. {otherwise}") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} should be text in UTF-8, but: {error}. Save it as UTF-8, or make it anew."
        ) from error


def save_pickle(path: Path, value: Any) -> None:
    """Write `value`, made of plain built-ins and numpy arrays only, for `load_pickle` to read."""
    with write_atomically(path) as file:
        pickle.dump(value, file, protocol=PICKLE_PROTOCOL)


def load_pickle(path: Path) -> Any:
    """Read a pickle of plain built-ins and numpy arrays of numbers or text, of any numpy version.

    Raises ValueError where the file is damaged or asks for anything else: a pickle may name any
    function to be called, so what is not on the list is refused before it is even imported.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"There is no {path}. Name the folder that holds it, or take the step that makes it: "
            "see `python -m captioning --help`."
        )
    with path.open("rb") as file:
        try:
            return _without_stand_ins(_PlainUnpickler(file).load())
        except Exception as error:  # damaged bytes can raise nearly anything
            raise ValueError(
                f"{path} cannot be read: {error or type(error).__name__}. Wanted: a whole pickle "
                "of dict, list, str, int and the like, and numpy arrays of numbers or text. "
                "Make the file anew, or fetch it again from a source you trust."
            ) from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "builtins" and name in PLAIN_BUILTINS:
            return super().find_class(module, name)
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")


# Below, stand-ins for what numpy names in its pickles. The names moved between numpy 1 and 2, and
# numpy's own classes believe any state: a forged dtype reads beyond the end of its array.


class _Dtype:
    def __init__(self, code: str, *_flags: bool):
        self.value = np.dtype(code)
        if self.value.kind not in PLAIN_DTYPE_KINDS:
            raise pickle.UnpicklingError(f"it holds numpy values of {self.value}, which is refused")

    def __setstate__(self, state: tuple) -> None:
        self.value = self.value.newbyteorder(state[1])


class _Array:
    def __init__(self, *_type_and_shape: Any):
        """Empty, until its state comes."""

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, is_fortran, content = state
        order = "F" if is_fortran else "C"
        self.value = _array(content, dtype, shape, order).copy("K")  # a copy can be written to


def _array(content, dtype: _Dtype, shape, order, axis_order=None) -> np.ndarray:
    if axis_order is None:
        return np.frombuffer(content, dtype.value).reshape(shape, order=order)
    return np.frombuffer(content, dtype.value).reshape(shape).transpose(axis_order)


def _scalar(dtype: _Dtype, content: bytes) -> np.generic:
    return np.ndarray((), dtype.value, content)[()]


_STAND_INS = {("numpy", "dtype"): _Dtype, ("numpy", "ndarray"): _Array}
for _core in ("numpy.core", "numpy._core"):  # numpy 1, numpy 2
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _Array
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _array


def _without_stand_ins(value: Any) -> Any:
    if isinstance(value, (_Dtype, _Array)):
        return value.value
    if isinstance(value, dict):
        return {key: _without_stand_ins(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_without_stand_ins, value))
    return value
