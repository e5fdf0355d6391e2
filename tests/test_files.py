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
    """Pickles as the call `function(*arguments)`, the way an attack is written."""

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


def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path):
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


def test_what_a_library_writes_appears_whole_too_under_a_name_that_ends_alike(tmp_path):
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


def test_plain_values_come_back_from_a_pickle_as_they_were(tmp_path):
    value = {"a": [1, 2.5, None, True], "b": ("x", b"y", {3}, frozenset([4])), 5: bytearray(b"z")}
    save_pickle(tmp_path / "p", value)
    assert load_pickle(tmp_path / "p") == value


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_come_back_from_every_protocol_as_they_were(tmp_path, protocol):
    (tmp_path / "p").write_bytes(pickle.dumps(ARRAYS, protocol))
    loaded = load_pickle(tmp_path / "p")
    assert_same_arrays(loaded, ARRAYS)
    loaded["features"][0, 0] = 7  # can be written to


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_numbers_survive_whatever_the_byte_order_of_the_writing_machine(tmp_path, protocol):
    (tmp_path / "p").write_bytes(pickle.dumps(np.array([1.5, 2.5], ">f4"), protocol))
    assert load_pickle(tmp_path / "p").tolist() == [1.5, 2.5]


def test_saved_arrays_come_back_and_are_read_by_pickle_itself(tmp_path):
    save_pickle(tmp_path / "p", ARRAYS)
    assert_same_arrays(load_pickle(tmp_path / "p"), ARRAYS)
    assert_same_arrays(pickle.loads((tmp_path / "p").read_bytes()), ARRAYS)


def test_pickles_are_read_under_the_module_names_of_numpy_1_and_numpy_2(tmp_path):
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
    with pytest.raises(ValueError, match=r"evil\.p cannot be read: it asks for \w+\.system"):
        load_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__, open, np.load, np.save])
def test_functions_that_lead_elsewhere_are_refused(tmp_path, function):
    (tmp_path / "p").write_bytes(pickle.dumps(Call(function, "1")))
    with pytest.raises(ValueError, match="which is refused. Expected .* Create the file again"):
        load_pickle(tmp_path / "p")


def test_a_dotted_name_does_not_lead_from_an_allowed_class_to_its_methods(tmp_path):
    # Protocol 4, the texts "numpy" and "ndarray.tofile", "take the one from the other", "end".
    (tmp_path / "p").write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")
    with pytest.raises(ValueError, match="asks for numpy.ndarray.tofile"):
        load_pickle(tmp_path / "p")


@pytest.mark.parametrize("content", [None, "text", Path("x"), Call(os.system, "exit 1")])
@pytest.mark.parametrize("dtype", [object, [("a", np.float32), ("b", object)]])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_of_objects_are_refused_whatever_they_hold(tmp_path, content, dtype, protocol):
    array = np.empty(2, dtype)
    array[0] = content if dtype is object else (1.0, content)
    (tmp_path / "p").write_bytes(pickle.dumps([array], protocol))
    with pytest.raises(ValueError, match="which is refused"):
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
    with pytest.raises(ValueError, match="cannot be read"):
        load_pickle(tmp_path / "p")


def test_a_forged_dtype_does_not_reach_beyond_its_array(tmp_path):
    record = (3, "<", (np.dtype("f4"), (1000,)), ("a",), {"a": (np.dtype("f4"), 4000)}, -1, -1, 63)
    forged = Call(np.dtype, "f4", False, True, state=record)
    arrays = [Call(_frombuffer, b"8 bytes.", forged, (2,), "C"), rebuilt(forged, (2,), b"8 bytes.")]
    (tmp_path / "p").write_bytes(pickle.dumps(arrays))
    for array in load_pickle(tmp_path / "p"):
        assert (array.dtype, array.tobytes()) == (np.float32, b"8 bytes.")


def test_one_array_under_two_names_stays_one_array(tmp_path):
    array = np.ones(3)
    save_pickle(tmp_path / "p", {"a": array, "b": [array, (array,)]})
    loaded = load_pickle(tmp_path / "p")
    assert loaded["a"] is loaded["b"][0] is loaded["b"][1][0]


def test_a_pickle_cut_anywhere_is_called_unreadable(tmp_path):
    whole = pickle.dumps({"features": np.ones(8, np.float32), "names": ["dog"]}, 4)
    path = tmp_path / "cut.p"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.p cannot be read: .*Create the file again"):
            load_pickle(path)


def test_garbage_is_called_unreadable(tmp_path):
    path = tmp_path / "garbage.p"
    for seed in range(50):
        path.write_bytes(np.random.default_rng(seed).bytes(100))
        with pytest.raises(ValueError, match=r"garbage\.p cannot be read"):
            load_pickle(path)


def test_a_missing_pickle_is_named_with_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*features\.p\. Name the folder"):
        load_pickle(tmp_path / "features.p")
