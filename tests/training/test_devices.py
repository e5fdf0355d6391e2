"""Training on several devices and in several processes, with each backend of Keras that can."""

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioning.errors import UserError
from captioning.training import devices

SCRIPT = Path(__file__).parents[1] / "train_on_devices.py"
SETTINGS = {
    "decoder": "merge", "min_word_count": 1, "embedding_units": 8, "units": 12, "batch_size": 5,
    "epochs": 3, "learning_rate": 0.03, "warmup_epochs": 0.5, "dropout": 0.0,
    "self_critical_epochs": 1, "self_critical_learning_rate": 0.001, "samples": 2, "members": 1,
    "student": False,
}  # fmt: skip

needs_jax = pytest.mark.skipif(not find_spec("jax"), reason="needs JAX: pip install '.[jax]'")


def start(folder, backend="jax", devices=1, processes=1, **settings):
    """Starts the processes of a training."""
    folder.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    running = []
    for number in range(processes):
        environment = {**os.environ, "KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""}
        environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compiles faster
        if processes > 1:
            environment |= {
                "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
                "KERAS_DISTRIBUTION_NUM_PROCESSES": str(processes),
                "KERAS_DISTRIBUTION_PROCESS_ID": str(number),
            }
        command = [sys.executable, SCRIPT, folder, str(devices), json.dumps(SETTINGS | settings)]
        running.append(
            subprocess.Popen(
                [*map(str, command)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=(folder / f"errors-{number}").open("w", encoding="utf-8"),
                text=True,
            )
        )
    return running


def finish(folder, running):
    """Waits for the processes. Returns, of each, what it printed and its result."""
    try:
        outputs = [process.communicate(timeout=300)[0].splitlines() for process in running]
    finally:
        for process in running:
            process.kill()
    errors = [path.read_text(encoding="utf-8")[-3000:] for path in sorted(folder.glob("errors-*"))]
    assert [process.returncode for process in running] == [0] * len(running), "\n".join(errors)
    return [(printed, json.loads(result)) for *printed, result in outputs]


def assert_equal_epochs(result, expected):
    """The losses, the rewards and the scores of all epochs are equal up to rounding."""
    for epoch, expected_epoch in zip(result["history"], expected["history"], strict=True):
        assert epoch.pop("stage") == expected_epoch["stage"]
        numbers = {name: value for name, value in expected_epoch.items() if name != "stage"}
        assert epoch == pytest.approx(numbers, rel=0, abs=1e-5)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    """The result of a training with JAX on one device: three epochs and one with rewards."""
    folder = tmp_path_factory.mktemp("one") / "models"
    ((_, result),) = finish(folder, start(folder))
    return result


@needs_jax
@pytest.mark.slow
def test_two_devices_and_two_processes_train_as_one_device_does(one_device, tmp_path):
    """Neither 25 rows, as in the first stage, nor 5 images, as in the second, divide by two."""
    stages = [epoch["stage"] for epoch in one_device["history"]]
    assert stages == ["cross-entropy"] * 3 + ["self-critical"]
    folders = tmp_path / "devices", tmp_path / "processes"
    trainings = start(folders[0], devices=2), start(folders[1], processes=2)
    ((printed, result),) = finish(folders[0], trainings[0])
    assert "Training on 2 device(s) with jax: cpu:0, cpu:1" in printed
    assert_equal_epochs(result, one_device)

    (_, first), (_, second) = finish(folders[1], trainings[1])
    assert second["history"] == first["history"]
    assert_equal_epochs(first, one_device)
    written = sorted(path.name for path in folders[1].iterdir() if "errors" not in path.name)
    assert written == ["caption_model.keras", "training.json"]


@pytest.mark.slow
def test_two_devices_of_tensorflow_train_as_one_does(tmp_path):
    """`MirroredStrategy`, on batches of 25 rows. The losses of the epoch differ: without padding,
    TensorFlow weights the loss of a batch by its rows."""
    options = {"backend": "tensorflow", "epochs": 1, "self_critical_epochs": 0}
    folders = tmp_path / "one", tmp_path / "two"
    trainings = [
        start(folder, devices=number, **options) for number, folder in enumerate(folders, 1)
    ]
    results = [finish(*pair) for pair in zip(folders, trainings, strict=True)]
    ((_, one),), ((printed, two),) = results
    assert "Training on 2 device(s) with tensorflow: cpu:0, cpu:1" in printed
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-3)  # a lost batch changes 1 %


@pytest.fixture
def one_processor(monkeypatch):
    """Hides the graphics cards of the machine."""
    monkeypatch.setattr("keras.distribution.list_devices", lambda: ["cpu:0"])


def test_without_graphics_cards_one_processor_trains(one_processor, capsys):
    with devices.use_devices():
        assert devices.num_devices() == devices.num_processes() == 1
        assert devices.process_number() == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("number", [0, 2])
def test_another_number_of_devices_than_there_are_is_an_error(one_processor, number):
    message = f"Expected a number of devices from 1 to 1, got {number}: Keras finds cpu:0"
    with pytest.raises(ValueError, match=message):
        with devices.use_devices(number):
            pass


def test_several_processes_need_jax(monkeypatch):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match="backend jax for training in 2 processes, got tensorflow"):
        with devices.use_devices():
            pass


@pytest.mark.parametrize("number", ["two", "0", "-1", "1.5", ""])
def test_a_wrong_number_of_processes_is_an_error(monkeypatch, number):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", number)
    message = (
        "Expected a whole number from 1 in KERAS_DISTRIBUTION_NUM_PROCESSES, got '{}'. Correct"
    )
    with pytest.raises(UserError, match=message.format(number)):
        with devices.use_devices():
            pass


@pytest.mark.parametrize("number", ["first", "2"])
def test_a_wrong_number_of_a_process_is_an_error(monkeypatch, number):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", number)
    message = (
        f"Expected a whole number from 0 to 1 in KERAS_DISTRIBUTION_PROCESS_ID, got '{number}'"
    )
    with pytest.raises(UserError, match=message):
        with devices.use_devices():
            pass


@pytest.mark.parametrize(
    ("number", "order"), [(0, ["block", "all processes"]), (1, ["all processes", "block"])]
)
def test_the_first_process_runs_a_block_before_the_others(monkeypatch, number, order):
    events = []
    monkeypatch.setattr(devices, "process_number", lambda: number)
    monkeypatch.setattr(devices, "wait_for_all_processes", lambda: events.append("all processes"))
    with devices.first_process_first():
        events.append("block")
    assert events == order


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "float32"), ((8, 0), "mixed_bfloat16")]
)
def test_the_precision_is_that_of_the_graphics_card_not_of_the_processor(
    monkeypatch, capability, precision
):
    import tensorflow

    monkeypatch.setattr("keras.distribution.list_devices", lambda: ["gpu:0"])
    monkeypatch.setattr(tensorflow.config, "list_physical_devices", lambda kind: ["card"])
    monkeypatch.setattr(
        tensorflow.config.experimental,
        "get_device_details",
        lambda card: {"compute_capability": capability},
    )
    assert devices.training_precision() == precision


@needs_jax
@pytest.mark.parametrize(
    ("capability", "precision"),
    [("7.5", "float32"), ("9.0", "mixed_bfloat16"), ("gfx942", "float32")],
)
def test_with_jax_too_the_precision_is_that_of_the_graphics_card(
    monkeypatch, capability, precision
):
    import jax

    card = SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    monkeypatch.setattr("keras.distribution.list_devices", lambda: ["gpu:0"])
    monkeypatch.setattr(jax, "local_devices", lambda: [card])
    assert devices.training_precision() == precision


def test_a_backend_that_cannot_train_is_refused(monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "torch")
    expected = "Expected the backend jax or tensorflow for training, got torch"
    with pytest.raises(ValueError, match=expected), devices.use_devices():
        pass
