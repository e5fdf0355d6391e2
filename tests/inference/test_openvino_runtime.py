import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from captioning.inference.network_files import read_network
from captioning.inference.openvino_runtime import Network, compile_network, hide_modules, openvino

ROOT = Path(__file__).parents[2]


def output_of(code: str) -> str:
    """Runs `code` in a fresh Python and returns its output."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_captioning_changes_nothing_in_the_host_program():
    """It starts no process, opens no connection, and hides or changes nothing."""
    code = """
import decimal, locale, logging, os, random, signal, sys, threading, warnings
import numpy, PIL.Image  # captioning needs them, and they change some settings

def settings():
    return {
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "folder": os.getcwd(),
        "threads": threading.active_count(),
        "processors": os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None,
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "hooks": [sys.excepthook, sys.displayhook, threading.excepthook, *sys.meta_path],
        "streams": [sys.stdin, sys.stdout, sys.stderr],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval()],
        "logging": [logging.root.level, *logging.root.handlers],
        "random numbers": [random.getstate(), str(numpy.random.get_state())],
        "numpy": [numpy.geterr(), numpy.get_printoptions()],
        "decimals": str(decimal.getcontext()),
        "locale": locale.setlocale(locale.LC_ALL),
        "Pillow": [PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES],
    }

def refuse(event, _):
    if event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "socket.connect"):
        raise AssertionError(event)

import PIL.ImageFile
sys.addaudithook(refuse)
modules, before = dict(sys.modules), settings()
import captioning
captioner = captioning.load()
caption = captioner.caption("examples/cat.jpg")
captioner.attention("examples/cat.jpg", caption)
after = settings()
print([name for name in before if before[name] != after[name]])
print([name for name in modules if sys.modules.get(name) is not modules[name]])
print([name for name, module in sys.modules.items() if module is None])
print([name for name in sys.modules if "telemetry" in name or name in ("keras", "tensorflow")])
"""
    assert output_of(code).splitlines() == ["[]"] * 4


def test_the_host_can_import_the_telemetry_that_was_hidden():
    code = """
import captioning.inference.openvino_runtime
import openvino_telemetry
print(openvino_telemetry.Telemetry.__module__.split(".")[0])
"""
    assert output_of(code) == "openvino_telemetry\n"


def test_the_converter_is_imported_when_it_is_first_used():
    code = """
import sys, captioning.inference.openvino_runtime, openvino
print("openvino.tools.ovc" in sys.modules, hasattr(openvino, "no_such_name"))
print(openvino.convert_model.__module__.startswith("openvino.tools.ovc"))
from openvino import convert_model
import openvino.tools.ovc
"""
    assert output_of(code) == "False False\nTrue\n"


def test_openvino_imported_earlier_by_the_host_is_not_changed():
    code = """
import sys
sys.modules["openvino_telemetry"] = None  # or this test would send telemetry
import openvino
before = dict(vars(openvino))
import captioning.inference.openvino_runtime
print(vars(openvino) == before, "openvino.tools.ovc" in sys.modules)
"""
    assert output_of(code) == "True True\n"


def test_hidden_modules_cannot_be_imported_until_the_end_of_the_block():
    before = dict(sys.modules)
    with hide_modules("json", "no_such_module"):
        with pytest.raises(ImportError):
            import json
    import json  # noqa: F811

    assert json.loads("1") == 1
    assert sys.modules == before


@pytest.fixture(scope="module")
def double():
    """A network: float32 (rows, 3) -> twice that."""
    ops = openvino.opset13
    numbers = ops.parameter([-1, 3], np.float32)
    doubled = ops.multiply(numbers, np.float32(2))
    return Network(compile_network(openvino.Model([doubled], [numbers])))


def test_outputs_do_not_change_when_the_network_runs_again(double):
    (first,) = double([np.ones((2, 3), "float32")])
    double([np.zeros((2, 3), "float32")])
    np.testing.assert_array_equal(first, np.full((2, 3), 2))


def test_calls_from_several_threads_return_the_outputs_of_their_own_inputs(double):
    def run(number):
        return [double([np.full((number % 7, 3), number, "float32")])[0] for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(run, range(100)))
    for number, arrays in enumerate(outputs):
        for array in arrays:
            np.testing.assert_array_equal(array, np.full((number % 7, 3), 2 * number))


def test_a_call_with_inputs_of_a_wrong_shape_leaves_the_network_usable(double):
    with pytest.raises(RuntimeError):
        double([np.ones((2, 4), "float32")])
    (array,) = double([np.ones((1, 3), "float32")])
    np.testing.assert_array_equal(array, [[2, 2, 2]])


def test_the_messages_for_a_missing_and_a_damaged_network_name_the_file(tmp_path):
    path = tmp_path / "network.xml"
    with pytest.raises(FileNotFoundError, match="There is no .*network.xml"):
        read_network(path)
    path.write_text("<net>")
    with pytest.raises(
        ValueError, match="Expected a network in .*network.xml .* got a missing or damaged one"
    ):
        read_network(path)
