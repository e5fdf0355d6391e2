"""How a command ends, and which text it can print on which console."""

import gc
import io
import os
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from pathlib import Path

import pytest

from captioning.app.console import INTERRUPTED, REQUIREMENTS, print_utf_8, run_command
from captioning.errors import UserError

ROOT = Path(__file__).parents[2]


def raising(error):
    def command():
        raise error

    return command


def run_with_stdout(stdout):
    """Prints a line by `run_command` in another process. Returns the status and the lines on
    stderr."""
    code = "import sys; from captioning.app.console import run_command; "
    code += "sys.exit(run_command(lambda: print('text') or 0, failed=3))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr.splitlines()


def test_a_command_without_an_error_returns_its_status(capsys):
    assert run_command(lambda: 0, failed=1) == 0
    assert run_command(lambda: 7, failed=1) == 7
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [UserError("Expected a dog, got a cat."), OSError("No dog.")])
def test_an_expected_error_is_one_line(error, capsys):
    assert run_command(raising(error), failed=2) == 2
    assert capsys.readouterr() == ("", f"{error}\n")


@pytest.mark.parametrize("kind", [ValueError, TypeError, KeyError, RuntimeError])
def test_a_bug_keeps_its_traceback(kind):
    with pytest.raises(kind, match="a bug"):
        run_command(raising(kind("a bug")), failed=2)


def test_the_error_of_a_missing_package_names_the_command_that_installs_it(capsys):
    error = ModuleNotFoundError("No module named 'gradio'", name="gradio.themes")
    assert run_command(raising(error), failed=1) == 1
    assert capsys.readouterr().err == (
        "Expected the package gradio, got none. In the folder of the clone, run: "
        'pip install ".[demo]"\n'
    )


def test_a_missing_module_of_this_package_keeps_its_traceback():
    with pytest.raises(ModuleNotFoundError):
        run_command(raising(ModuleNotFoundError(name="captioning.gone")), failed=1)


def test_each_package_that_may_be_missing_is_a_requirement_of_its_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = {".": project["dependencies"]} | {
        f".[{extra}]": requirements
        for extra, requirements in project["optional-dependencies"].items()
    }
    for module, target in REQUIREMENTS.items():
        package = "pillow" if module == "PIL" else module
        assert any(requirement.startswith(package) for requirement in listed[target]), module


@pytest.fixture
def heeded_sigint():
    """A shell lets background jobs ignore SIGINT, tests included."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def wait_for(signal_number):
    os.kill(os.getpid(), signal_number)
    signal.pause()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_a_command_with_one_word(number, heeded_sigint, capsys):
    before = signal.getsignal(number)
    assert run_command(lambda: wait_for(number), failed=1) == INTERRUPTED == 130
    assert capsys.readouterr().err == "Stopped.\n"
    assert signal.getsignal(number) == before


def test_a_library_that_turns_ctrl_c_into_an_error_does_not_hide_it(heeded_sigint, capsys):
    def convert():
        try:
            wait_for(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("Converting input model\nKeyboardInterrupt") from error

    assert run_command(convert, failed=1) == INTERRUPTED
    assert capsys.readouterr().err == "Stopped.\n"


def test_an_interrupt_that_python_ignores_in_garbage_collection_is_repeated(capsys):
    def interrupt_once(phase, info):
        gc.callbacks.remove(interrupt_once)
        signal.raise_signal(signal.SIGTERM)

    def command():
        gc.callbacks.append(interrupt_once)
        gc.collect()
        time.sleep(10)

    hook = sys.unraisablehook
    assert run_command(command, 1) == 130
    assert capsys.readouterr().err == "Stopped.\n"
    assert sys.unraisablehook is hook


def test_a_character_that_the_console_lacks_is_escaped(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    assert run_command(lambda: print("猫 and caf\udce9") or 0, failed=1) == 0
    assert console.buffer.getvalue().split() == [rb"\u732b", b"and", rb"caf\udce9"]
    assert (console.encoding, console.errors) == ("cp1252", "strict")


def test_utf_8_is_printed_on_request_whatever_the_encoding_of_the_console(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    assert run_command(lambda: print_utf_8() or print("犬") or 0, failed=1) == 0
    assert console.buffer.getvalue().decode("utf-8").strip() == "犬"
    assert (console.encoding, console.errors) == ("ascii", "strict")


def test_a_stream_in_memory_holds_the_text_as_it_is(monkeypatch):
    monkeypatch.setattr(sys, "stdout", memory := io.StringIO())
    assert run_command(lambda: print_utf_8() or print("猫") or 0, failed=1) == 0
    assert memory.getvalue() == "猫\n"


def test_a_command_runs_without_standard_streams(monkeypatch):
    def command():
        print("to nobody")
        print("to nobody", file=sys.stderr)
        return 0

    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert run_command(command, failed=1) == 0
    assert run_command(raising(UserError("to nobody")), failed=1) == 1
    assert (sys.stdout, sys.stderr) == (None, None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line_on_stderr_and_a_failure():
    with open("/dev/full", "w") as full:
        status, (line,) = run_with_stdout(full)
    assert status == 3
    assert "No space left on device: 'standard output'" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_error_that_cannot_be_printed_leaves_the_status(monkeypatch):
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert run_command(raising(UserError("one\ntwo")), failed=3) == 3
        monkeypatch.undo()
        with pytest.raises(OSError):
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_errors_are_printed_with_control_characters_escaped(capsys):
    assert run_command(raising(UserError("a\x1b[31m\nb\r")), failed=1) == 1
    assert capsys.readouterr().err == "a\\x1b[31m\nb\\r\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes are others there")
def test_a_closed_pipe_ends_the_command_without_a_message():
    read_end, write_end = os.pipe()
    os.close(read_end)
    assert run_with_stdout(write_end) == (3, [])
    os.close(write_end)


def test_warnings_of_pillow_are_not_printed(recwarn):
    def command():
        for module in ("PIL.TiffImagePlugin", "numpy"):
            warnings.warn_explicit("Corrupt EXIF data", UserWarning, "a.py", 1, module)
        return 0

    assert run_command(command, 1) == 0
    assert [warning.filename for warning in recwarn] == ["a.py"]
