import os
import pickle
import time
import tracemalloc
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from captioning.data.pickles import load_vectors, load_words, save_pickle

ROOT = Path(__file__).parents[2]

# As numpy names them in its pickles, before version 2 and since.
core = import_module("numpy._core" if hasattr(np, "_core") else "numpy.core")
_reconstruct, _frombuffer = core.multiarray._reconstruct, core.numeric._frombuffer

WORDS = ["a", "dog", "été", "हिन्दी", "x" * 300]
VECTORS = {"b.jpg": np.array([1, 2], "float32"), "a.jpg": np.array([0, 0.5], "float32")}


class Call:
    """Pickles as the call `function(*arguments)`, as in an attack."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = function, arguments, state

    def __reduce__(self):
        return self.reduced


def rebuilt(dtype, shape, content):
    return Call(_reconstruct, np.ndarray, (0,), b"b", state=(1, shape, dtype, False, content))


def assert_same_vectors(loaded, expected):
    assert list(loaded) == list(expected)
    for name, vector in expected.items():
        np.testing.assert_array_equal(loaded[name], vector, strict=True)


def refused_at_once(load, path):
    """The error, which takes less than a second of processor time and 20 MB. Tracing the memory
    takes several times as long as loading, so the file is loaded twice."""
    message = r"^Expected a pickled .*, got another file"
    start = time.process_time()
    with pytest.raises(ValueError, match=message):
        load(path)
    assert time.process_time() - start < 1
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as error:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    return str(error.value)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_words_of_every_protocol_are_loaded(tmp_path, protocol):
    path = tmp_path / "tokenizer.p"
    for words in (WORDS, [], ["a"], [f"word{number}" for number in range(2500)]):
        path.write_bytes(pickle.dumps(words, protocol))
        assert load_words(path) == words


def test_the_words_of_the_shipped_model_are_loaded():
    words = load_words(ROOT / "tokenizer.p")
    assert words == pickle.loads((ROOT / "tokenizer.p").read_bytes())
    assert words[:3] == ["a", "in", "the"]


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f2", "f8"])
@pytest.mark.parametrize("shape", [(2,), (1, 2), (1, 1, 2)])
def test_vectors_of_every_protocol_and_float_type_are_loaded(tmp_path, protocol, dtype, shape):
    stored = {name: vector.astype(dtype).reshape(shape) for name, vector in VECTORS.items()}
    path = tmp_path / "features.p"
    path.write_bytes(pickle.dumps(stored, protocol))
    loaded = load_vectors(path)
    assert_same_vectors(loaded, VECTORS)
    loaded["a.jpg"][0] = 7  # can be written to


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_vectors_that_are_views_or_the_same_array_are_loaded(tmp_path, protocol):
    vector = np.arange(6, dtype="float32")
    path = tmp_path / "features.p"
    path.write_bytes(pickle.dumps({"a": vector[::2], "b": vector[:3], "c": vector[:3]}, protocol))
    loaded = [part.tolist() for part in load_vectors(path).values()]
    assert loaded == [[0, 2, 4], [0, 1, 2], [0, 1, 2]]
    path.write_bytes(pickle.dumps({"a": vector, "b": vector}, protocol))
    loaded = [part.tolist() for part in load_vectors(path).values()]
    assert loaded == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]


def test_many_vectors_are_loaded_quickly(tmp_path):
    vectors = {f"{number}.jpg": np.full(8, number, "float32") for number in range(8000)}
    save_pickle(tmp_path / "features.p", vectors)
    start = time.process_time()
    assert_same_vectors(load_vectors(tmp_path / "features.p"), vectors)
    assert time.process_time() - start < 5


def test_saved_values_are_loaded_here_and_by_pickle_itself(tmp_path):
    path = tmp_path / "p"
    save_pickle(path, VECTORS)
    assert_same_vectors(load_vectors(path), VECTORS)
    assert_same_vectors(pickle.loads(path.read_bytes()), VECTORS)
    save_pickle(path, WORDS)
    assert load_words(path) == pickle.loads(path.read_bytes()) == WORDS


def test_pickles_of_numpy_1_and_of_numpy_2_are_loaded(tmp_path):
    old, new = b"numpy.core.multiarray\n_reconstruct", b"numpy._core.multiarray\n_reconstruct"
    written = pickle.dumps({"a.jpg": np.ones(3, "float32")}, protocol=3)
    assert (old in written) != (new in written)
    for names in [(old, new), (new, old)]:
        (tmp_path / "p").write_bytes(written.replace(*names))
        assert_same_vectors(load_vectors(tmp_path / "p"), {"a.jpg": np.ones(3, "float32")})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"word_index": {"a": 1}}, "it contains the opcode EMPTY_DICT"),
        (["a", ["dog"]], "it contains the opcode EMPTY_LIST"),
        (["a", 3], "it contains the opcode BININT1 3"),
        (["a dog"], "it contains the opcode SHORT_BINUNICODE 'a dog'"),
        (["\x1b[31m"], r"it contains the opcode SHORT_BINUNICODE '\x1b[31m'"),
        (["\udcff"], r"it contains the opcode SHORT_BINUNICODE '\udcff'"),
        ([""], "it contains the opcode SHORT_BINUNICODE ''"),
    ],
)
def test_other_values_than_words_are_refused(tmp_path, content, reason):
    path = tmp_path / "tokenizer.p"
    path.write_bytes(pickle.dumps(content))
    assert reason in refused_at_once(load_words, path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (["a.jpg"], "it contains the opcode EMPTY_LIST"),
        ({"a.jpg": [1.0]}, "it contains the opcode EMPTY_LIST"),
        ({"a.jpg": "text"}, "it contains str where"),
        ({3: np.ones(2)}, "it contains int where"),
        ({"a.jpg": np.ones(2, int)}, "it contains values of type 'i8'"),
        ({"a.jpg": np.array(["dog"])}, "it contains values of type 'U3'"),
        ({"a.jpg": np.array([[]], object)}, "it contains values of type 'O8'"),
        ({"a.jpg": np.ones(2, [("x", "f4"), ("y", "f4")])}, "it contains values of type 'V8'"),
        ({"a.jpg": np.ones((3, 2))}, "it contains arrays of the shapes {(3, 2)}"),
        ({"a.jpg": np.ones((2, 1))}, "it contains arrays of the shapes {(2, 1)}"),
        ({"a.jpg": np.ones(0)}, "it contains arrays of the shapes {(0,)}"),
        ({"a.jpg": np.array(1.0)}, "it contains arrays of the shapes {()}"),
        ({"a.jpg": np.float64(1)}, "it names 'numpy._core.multiarray scalar'"),
        ({"a.jpg": np.array([1, np.nan])}, "it contains numbers that are not finite"),
        ({"a.jpg": np.array([1e300])}, "it contains numbers that are not finite"),
        ({"a.jpg": np.ones(2), "b.jpg": np.ones(3)}, "it contains vectors of 2 widths"),
    ],
)
def test_other_values_than_vectors_are_refused(tmp_path, content, reason):
    path = tmp_path / "features.p"
    path.write_bytes(pickle.dumps(content))
    assert reason in refused_at_once(load_vectors, path).replace("numpy.core", "numpy._core")


def nested(depth, value=(), copies=1):
    for _ in range(depth):
        value = (value,) * copies
    return value


def laughs(depth):
    value = ["ha"]
    for _ in range(depth):
        value = [value] * 10
    return value


# Protocol 4: 50,000 tuples, one in the other, as a key of a dict. `pickle` crashes at its hash.
DEEP_KEY = b"\x80\x04}\x8c\x01a" + b"\x85" * 50_000 + b"K\x01s."
# The same in the words, and lists without end in themselves.
DEEP_LISTS = b"\x80\x04" + b"]" * 50_000 + b"a" * 49_999 + b"."
# list(bytes(3 * 10**8)), of 46 bytes, which takes 2.7 GB.
HUGE_LIST = b"\x80\x04cbuiltins\nlist\ncbuiltins\nbytes\nJ\x00\xa3\xe1\x11\x85R\x85R."

NUMBERS = bytes(40_000)

ATTACKS = {
    "list(bytes(n))": HUGE_LIST,
    "the same in a list": b"\x80\x04]" + HUGE_LIST[2:-1] + b"a.",
    "the same in a dict": b"\x80\x04}\x8c\x01a" + HUGE_LIST[2:-1] + b"s.",
    "bytes(n)": pickle.dumps([Call(bytes, 10**9)]),
    "billion laughs": pickle.dumps(laughs(9)),
    "billion laughs in a dict": pickle.dumps({"a": laughs(9)}),
    "billion laughs of tuples": pickle.dumps({"a": nested(30, "ha", 10)}),
    "tuples as a key": DEEP_KEY,
    "lists in lists": DEEP_LISTS,
    "a dict in itself": b"\x80\x04}\x94\x8c\x01ah\x00s.",
    "defaults of a function": pickle.dumps(
        {"a": Call(_frombuffer, state=(None, {"__defaults__": (1, 2)}))}
    ),
    "attributes of the array type": b"\x80\x04}\x8c\x01acnumpy\nndarray\n}\x8c\x01xK\x01sbs.",
    "a method of a known class": b"\x80\x04}\x8c\x01a\x8c\x05numpy\x8c\x0endarray.tofile\x93s.",
    "a million opcodes without a value": b"\x80\x04]" + b"\x94" * 10**6 + b".",
    "a million opcodes without a value in a dict": b"\x80\x04}" + b"\x94" * 10**6 + b".",
    "tuples without end": b"\x80\x04}" + b")" * 10**6 + b".",
    "marks without end": b"\x80\x04}" + b"(" * 10**6 + b".",
    "a text of 2**62 bytes": b"\x80\x04]\x8d" + (2**62).to_bytes(8, "little") + b"a.",
    "bytes of 2**62 bytes": b"\x80\x04}\x8c\x01a\x8e" + (2**62).to_bytes(8, "little") + b"s.",
    "a number of a million digits": b"\x80\x04]L" + b"9" * 10**6 + b"L\na.",
    "a memo that is not there": b"\x80\x04}\x8c\x01ah\x07s.",
    "a file from another file": b"\x80\x04]Pother\na.",
    "an extension": b"\x80\x04]\x82\x01a.",
    "the same numbers 5,000 times": pickle.dumps(
        {str(n): Call(_frombuffer, NUMBERS, np.dtype("f4"), (10_000,), "C") for n in range(5000)}
    ),
    "calls with a million arguments": b"\x80\x04}"
    + pickle.dumps(_reconstruct, 2)[2:-1].replace(b"q\x00", b"")
    + b"q\x00B\x40\x42\x0f\x00"
    + bytes(10**6)
    + b"q\x01R"
    + b"h\x00h\x01R" * 30_000
    + b".",
    "tuples of 10,000": b"\x80\x04}" + b"(" + b"N" * 10_000 + b"tq\x00" + b"h\x00" * 30_000 + b".",
    "nothing on the stack": b"\x80\x04}0R.",
    "empty": b"",
    "the end alone": b".",
}


@pytest.mark.parametrize("load", [load_words, load_vectors])
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused_within_a_second_and_20_megabytes(tmp_path, load, attack):
    path = tmp_path / "evil.p"
    path.write_bytes(ATTACKS[attack])
    assert "evil.p" in refused_at_once(load, path)


@pytest.mark.parametrize("load", [load_words, load_vectors])
@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_a_command_is_refused_and_not_run(tmp_path, load, protocol):
    trace = tmp_path / "trace"
    path = tmp_path / "evil.p"
    command = Call(os.system, f"touch {trace}")
    for content in (command, [command], {"a": command}, {"a": rebuilt(command, (1,), b"4444")}):
        path.write_bytes(pickle.dumps(content, protocol))
        refused_at_once(load, path)
    assert not trace.exists()


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__, open, np.load, np.save])
def test_other_names_than_those_of_arrays_are_refused(tmp_path, function):
    path = tmp_path / "evil.p"
    path.write_bytes(pickle.dumps({"a": Call(function, "1")}))
    assert f"it names '{function.__module__} {function.__name__}'" in refused_at_once(
        load_vectors, path
    )


@pytest.mark.parametrize(
    "forged",
    [
        Call(np.ndarray, (1,), "O", b"pointer!"),
        Call(_frombuffer, b"pointer!", "O", (1,), "C"),
        Call(_frombuffer, b"8 bytes.", Call(np.dtype, "f4"), (1000,), "C"),
        rebuilt(Call(np.dtype, "f4"), (1000,), b"8 bytes."),
        rebuilt(Call(np.dtype, "f4"), (1,), b"8 bytes."),
        rebuilt(Call(np.dtype, "f4"), (2**62, 4), b"8 bytes."),
        rebuilt(Call(np.dtype, "f4"), (2,), "8 bytes."),
        rebuilt("O", (1,), [Call(os.system, "exit 1")]),
        Call(np.ndarray, (1,)),
    ],
)
def test_a_forged_array_is_refused(tmp_path, forged):
    path = tmp_path / "forged.p"
    path.write_bytes(pickle.dumps({"a": forged}))
    refused_at_once(load_vectors, path)


def test_a_forged_dtype_does_not_read_beyond_its_array(tmp_path):
    record = (3, "<", None, ("a",), None, 4000, -1, 63)
    forged = Call(np.dtype, "f4", False, True, state=record)
    arrays = [Call(_frombuffer, b"8 bytes.", forged, (2,), "C"), rebuilt(forged, (2,), b"8 bytes.")]
    (tmp_path / "p").write_bytes(pickle.dumps(dict(zip("ab", arrays, strict=True))))
    for vector in load_vectors(tmp_path / "p").values():
        assert (vector.dtype, vector.tobytes()) == (np.float32, b"8 bytes.")


def test_a_file_larger_than_any_vocabulary_is_not_read(tmp_path):
    path = tmp_path / "tokenizer.p"
    with path.open("wb") as file:
        file.truncate(10**12)
    for load in (load_words, load_vectors):
        assert "it has 1,000,000,000,000 bytes, more than" in refused_at_once(load, path)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_truncated_pickle_is_refused(tmp_path, protocol):
    path = tmp_path / "cut.p"
    for load, value in ((load_words, WORDS), (load_vectors, VECTORS)):
        whole = pickle.dumps(value, protocol)
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"cut\.p, got another file \(.+\)\. "):
                load(path)


def test_altered_pickles_are_read_or_refused(tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "altered.p"
    for load, value in ((load_words, WORDS), (load_vectors, VECTORS)):
        whole = np.frombuffer(pickle.dumps(value), "uint8")
        for _ in range(3000):
            altered = whole.copy()
            places = random.integers(0, len(whole), random.integers(1, 4))
            altered[places] = random.integers(0, 256, len(places))
            path.write_bytes(altered.tobytes())
            try:
                loaded = load(path)
            except ValueError as error:
                assert "altered.p, got another file" in str(error)
            else:
                assert all(isinstance(name, str) for name in loaded)


@pytest.mark.parametrize("load", [load_words, load_vectors])
def test_the_message_for_a_missing_pickle_names_it_and_gives_advice(tmp_path, load):
    with pytest.raises(FileNotFoundError, match=r"no .*features\.p\. Name its folder"):
        load(tmp_path / "features.p")
