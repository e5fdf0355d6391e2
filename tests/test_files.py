import os
import pickle
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from captioning.files import load_pickle, replace_when_written, save_pickle, write_atomically

# As numpy names them in its pickles, before version 2 and since.
core = import_module("numpy._core" if hasattr(np, "_core") else "numpy.core")
_reconstruct, _frombuffer = core.multiarray._reconstruct, core.numeric._frombuffer


class Call:
    """Pickles as the call `function(*arguments)`, as in an attack."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = function, arguments, state

    def __reduce__(self):
        return self.reduced


def assert_same_arrays(loaded, saved):
    assert list(loaded) == list(saved)
    for name, array in saved.items():
        assert type(loaded[name]) is type(array)
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array, strict=True)


ARRAYS = {
    "features": np.arange(12, dtype=np.float32).reshape(3, 4),
    "transposed": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(1, 0, 2),
    "by columns": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "every second": np.arange(10)[::2],
    "words": np.array(["dog", "été"]),
    "true or false": np.array([True, False]),
    "single": np.array(3.0),
    "empty": np.empty((0, 2048), np.float32),
    "scalar": np.float32(0.1),
    "word": np.str_("dog"),
    "no word": np.str_(""),
}


def test_a_file_appears_whole_and_no_temporary_file_remains(tmp_path):
    path = tmp_path / "new" / "captions.txt"
    with write_atomically(path, "w") as file:
        file.write("été\n")
        assert not path.exists()
    assert path.read_bytes() == b"\xc3\xa9t\xc3\xa9\n"
    assert os.listdir(path.parent) == ["captions.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_old_file_stays_when_writing_fails(tmp_path, error):
    path = tmp_path / "data"
    path.write_bytes(b"old")
    with pytest.raises(error), write_atomically(path) as file:
        file.write(b"half of the n")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["data"]


def test_a_file_written_by_a_library_appears_whole(tmp_path):
    path = tmp_path / "folder" / "model.weights.h5"
    with replace_when_written(path) as neighbour:
        assert neighbour.name.endswith("model.weights.h5") and neighbour != path
        neighbour.write_text("whole")
        assert not path.exists()
    with pytest.raises(ValueError), replace_when_written(path) as neighbour:
        neighbour.write_text("half")
        raise ValueError
    assert path.read_text() == "whole"
    assert [file.name for file in path.parent.iterdir()] == ["model.weights.h5"]


def test_a_mode_that_does_not_write_a_whole_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got .a."), write_atomically(tmp_path / "f", "a"):
        pass


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    with write_atomically(tmp_path / "ours") as file:
        file.write(b"")
    (tmp_path / "usual").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_plain_values_are_loaded_as_they_were_saved(tmp_path):
    value = {"a": [1, 2.5, None, True], "b": ("x", b"y", {3}, frozenset([4])), 5: bytearray(b"z")}
    save_pickle(tmp_path / "p", value)
    assert load_pickle(tmp_path / "p") == value


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_are_loaded_from_every_protocol(tmp_path, protocol):
    (tmp_path / "p").write_bytes(pickle.dumps(ARRAYS, protocol))
    loaded = load_pickle(tmp_path / "p")
    assert_same_arrays(loaded, ARRAYS)
    loaded["features"][0, 0] = 7  # can be written to


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_numbers_in_either_byte_order_are_loaded(tmp_path, protocol):
    (tmp_path / "p").write_bytes(pickle.dumps(np.array([1.5, 2.5], ">f4"), protocol))
    assert load_pickle(tmp_path / "p").tolist() == [1.5, 2.5]


def test_saved_arrays_are_loaded_here_and_by_pickle_itself(tmp_path):
    save_pickle(tmp_path / "p", ARRAYS)
    assert_same_arrays(load_pickle(tmp_path / "p"), ARRAYS)
    assert_same_arrays(pickle.loads((tmp_path / "p").read_bytes()), ARRAYS)


def test_pickles_of_numpy_1_and_of_numpy_2_are_loaded(tmp_path):
    old, new = b"numpy.core.multiarray\n_reconstruct", b"numpy._core.multiarray\n_reconstruct"
    written = pickle.dumps({"features": np.ones(3, np.float32)}, protocol=3)
    assert (old in written) != (new in written)
    for names in [(old, new), (new, old)]:
        (tmp_path / "p").write_bytes(written.replace(*names))
        assert_same_arrays(load_pickle(tmp_path / "p"), {"features": np.ones(3, np.float32)})


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_a_command_is_refused_and_not_run(tmp_path, protocol):
    trace = tmp_path / "trace"
    path = tmp_path / "evil.p"
    path.write_bytes(pickle.dumps({"a": Call(os.system, f"touch {trace}")}, protocol))
    with pytest.raises(ValueError, match=r"evil\.p, got an error: it names \w+\.system"):
        load_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__, open, np.load, np.save])
def test_pickled_functions_are_refused(tmp_path, function):
    (tmp_path / "p").write_bytes(pickle.dumps(Call(function, "1")))
    with pytest.raises(ValueError, match="which is refused.* Create the file again"):
        load_pickle(tmp_path / "p")


def test_a_method_of_an_allowed_class_is_refused(tmp_path):
    # Protocol 4, the texts "numpy" and "ndarray.tofile", "take the one from the other", "end".
    (tmp_path / "p").write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")
    with pytest.raises(ValueError, match="names numpy.ndarray.tofile"):
        load_pickle(tmp_path / "p")


@pytest.mark.parametrize("content", [None, "text", Path("x"), Call(os.system, "exit 1")])
@pytest.mark.parametrize("dtype", [object, [("a", np.float32), ("b", object)]])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_of_objects_are_refused(tmp_path, content, dtype, protocol):
    array = np.empty(2, dtype)
    array[0] = content if dtype is object else (1.0, content)
    (tmp_path / "p").write_bytes(pickle.dumps([array], protocol))
    with pytest.raises(ValueError, match="which are refused"):
        load_pickle(tmp_path / "p")


def rebuilt(dtype, shape, content):
    return Call(_reconstruct, np.ndarray, (0,), b"b", state=(1, shape, dtype, False, content))


@pytest.mark.parametrize(
    "forged",
    [
        Call(np.ndarray, (1,), "O", b"pointer!"),
        Call(_frombuffer, b"pointer!", "O", (1,), "C"),
        Call(_frombuffer, b"8 bytes.", Call(np.dtype, "f4"), (1000,), "C"),
        rebuilt(Call(np.dtype, "f4"), (1000,), b"8 bytes."),
        rebuilt(Call(np.dtype, "f4"), (1,), b"8 bytes."),
        rebuilt(Call(np.dtype, "f4"), (2**62, 4), b"8 bytes."),
        rebuilt("O", (1,), [Call(os.system, "exit 1")]),
        Call(np.ndarray, (1,)),
    ],
)
def test_a_forged_array_is_refused(tmp_path, forged):
    (tmp_path / "p").write_bytes(pickle.dumps(forged))
    with pytest.raises(ValueError, match="Expected a pickle .*, got an error"):
        load_pickle(tmp_path / "p")


def test_a_forged_dtype_does_not_read_beyond_its_array(tmp_path):
    record = (3, "<", (np.dtype("f4"), (1000,)), ("a",), {"a": (np.dtype("f4"), 4000)}, -1, -1, 63)
    forged = Call(np.dtype, "f4", False, True, state=record)
    arrays = [Call(_frombuffer, b"8 bytes.", forged, (2,), "C"), rebuilt(forged, (2,), b"8 bytes.")]
    (tmp_path / "p").write_bytes(pickle.dumps(arrays))
    for array in load_pickle(tmp_path / "p"):
        assert (array.dtype, array.tobytes()) == (np.float32, b"8 bytes.")


def test_references_to_the_same_array_are_loaded_as_the_same_array(tmp_path):
    array = np.ones(3)
    save_pickle(tmp_path / "p", {"a": array, "b": [array, (array,)]})
    loaded = load_pickle(tmp_path / "p")
    assert loaded["a"] is loaded["b"][0] is loaded["b"][1][0]


def test_a_truncated_pickle_is_refused(tmp_path):
    whole = pickle.dumps({"features": np.ones(8, np.float32), "names": ["dog"]}, 4)
    path = tmp_path / "cut.p"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.p, got an error: .*Create the file again"):
            load_pickle(path)


def test_random_bytes_are_refused(tmp_path):
    path = tmp_path / "garbage.p"
    for seed in range(50):
        path.write_bytes(np.random.default_rng(seed).bytes(100))
        with pytest.raises(ValueError, match=r"garbage\.p, got an error"):
            load_pickle(path)


def test_the_message_for_a_missing_pickle_names_it_and_gives_advice(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*features\.p\. Name its folder"):
        load_pickle(tmp_path / "features.p")
