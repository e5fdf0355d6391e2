"""Writes files atomically and reads them safely: a file is written whole or not at all, and reading
a pickle calls none of the functions that it names."""

import pickle
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

# Protocol 5 writes and reads an array without a second copy in memory.
PICKLE_PROTOCOL = 5

PLAIN_BUILTINS = "bool bytearray bytes complex dict float frozenset int list set str tuple".split()

# Booleans, integers, floats, complex numbers, bytes and text. Neither objects, which are
# pointers, nor records, which may contain objects.
PLAIN_DTYPE_KINDS = "biufcSU"


@contextmanager
def write_atomically(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Opens a file, in mode "wb" or "w" (UTF-8, lines end in "\\n"), that becomes `path` at the end
    of the block.

    Writes to a temporary file beside `path`, so that readers find the old file or the new one,
    never half of one. If the block raises, deletes the temporary file and keeps the old one.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f'Expected the mode "wb" or "w", which write a whole file, got {mode!r}.')
    text_format = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    with _replacing(path, temporary), temporary.open(mode.replace("w", "x"), **text_format) as file:
        yield file


@contextmanager
def replace_when_written(path: Path) -> Iterator[Path]:
    """As `write_atomically`, for a library that writes a file itself: yields the temporary path,
    with the ending of `path`. Overwrites a file that a killed run left there."""
    temporary = path.with_name(f".saving-{path.name}")
    with _replacing(path, temporary):
        yield temporary


@contextmanager
def _replacing(path: Path, temporary: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
        temporary.replace(path)
    except BaseException:  # also after Ctrl-C
        temporary.unlink(missing_ok=True)
        raise


def require_mark(path: Path, mark: str) -> None:
    """Raises FileExistsError if there is a file at `path` without `mark`, a text in the files that
    this program wrote and may replace."""
    if path.exists() and mark.encode() not in path.read_bytes():
        raise FileExistsError(
            f"Expected a new file or one written by this program, got {path}, which is another "
            "file. Name a new file."
        )


def read_text(path: Path, advice: str, characters: int = -1) -> str:
    """Returns the text of a UTF-8 file, or its first `characters`, without a byte order mark and
    with "\\n" at all line ends. Raises FileNotFoundError, with `advice`, if the file is missing,
    ValueError if it is not UTF-8."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(characters)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no {path}. {advice}") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected text in UTF-8 in {path}, got other bytes ({error}). Save it as UTF-8, or "
            "create it again."
        ) from error


def save_pickle(path: Path, value: Any) -> None:
    """Writes `value`, of plain built-ins and numpy arrays only, for `load_pickle`."""
    with write_atomically(path) as file:
        pickle.dump(value, file, protocol=PICKLE_PROTOCOL)


def load_pickle(path: Path) -> Any:
    """Reads a pickle of plain built-ins and numpy arrays of numbers or text, of any numpy version.

    A pickle can name any function to be called. Names that are not on the list are refused before
    they are imported. Raises FileNotFoundError if the file is missing, ValueError if it is damaged
    or contains anything else.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"There is no {path}. Name its folder, or run the step that writes it: see `python -m "
            "captioning --help`."
        )
    with path.open("rb") as file:
        try:
            return _without_stand_ins(_PlainUnpickler(file).load())
        except Exception as error:  # damaged bytes can raise nearly anything
            raise ValueError(
                "Expected a pickle of dict, list, str, int and the like, and numpy arrays of "
                f"numbers or text, in {path}, got an error: {error or type(error).__name__}. "
                "Create the file again, or fetch it from a source that you trust."
            ) from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "builtins" and name in PLAIN_BUILTINS:
            return super().find_class(module, name)
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is refused")


# Stand-ins for the functions and classes that numpy names in its pickles. Their names differ
# between numpy 1 and 2, and numpy's own classes accept any state: a forged dtype reads beyond its
# array.


class _Dtype:
    def __init__(self, code: str, *_flags: bool):
        self.value = np.dtype(code)
        if self.value.kind not in PLAIN_DTYPE_KINDS:
            raise pickle.UnpicklingError(f"it has numpy values of {self.value}, which are refused")

    def __setstate__(self, state: tuple) -> None:
        self.value = self.value.newbyteorder(state[1])


class _Array:
    def __init__(self, *_type_and_shape: Any):
        """Empty until `__setstate__` fills it."""

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
