"""Runs a command at the console: prints any text, and turns expected errors into their messages."""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from errno import ENOSPC
from importlib.util import find_spec
from typing import Any, TextIO

from captioning.errors import UserError, printable

# Exit statuses.
FAILED = 1  # of a step; also if some images could not be captioned
NONE_CAPTIONED = 2  # of the commands that caption; also for a wrong command line
INTERRUPTED = 130  # that shells report after Ctrl-C

# Package -> what to install for it: the core, ".", or an extra of pyproject.toml.
REQUIREMENTS = {
    "filelock": ".",
    "numpy": ".",
    "openvino": ".",
    "PIL": ".",
    "tqdm": ".",
    "pyexiv2": ".[metadata]",
    "jinja2": ".[plots]",
    "matplotlib": ".[plots]",
    "gradio": ".[demo]",
    "keras": ".[train]",
    "pycocoevalcap": ".[train]",
    "scipy": ".[train]",
    "simplemma": ".[train]",
    "snowballstemmer": ".[train]",
    "tensorflow": ".[train]",
    "jax": ".[jax]",
    "nncf": ".[quantise]",
    "pyarrow": ".[parquet]",
    "ray": ".[scale]",
}


def require_package(name: str) -> None:
    """Raises ModuleNotFoundError if the package is not installed, without importing it."""
    if not find_spec(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def run_command(command: Callable[[], int], failed: int) -> int:
    """Runs a command, and returns its exit status.

    An OSError, a UserError or a missing package becomes its message on stderr and the status
    `failed`; every other error is a fault of the program and keeps its traceback. Ctrl-C and
    SIGTERM end the command with the line "Stopped." and the status `INTERRUPTED`. A reader that
    closes the pipe early, as `head` does, ends it without a line. The function restores signals and
    streams.
    """
    with _any_text_printable(), _interruptions() as interruptions, warnings.catch_warnings():
        # An image that Pillow warns of is captioned, or an error says that it cannot be read.
        warnings.filterwarnings("ignore", module=r"PIL\b")
        try:
            status, message = _run(command, failed)
        except Exception:
            if not interruptions:
                raise
            # A library has turned the KeyboardInterrupt into an error of its own.
            status, message = INTERRUPTED, "Stopped."
        if message:  # it is the last line: progress bars end after the error that ends them
            for line in message.split("\n"):
                print_error(line)
        return status


def _run(command: Callable[[], int], failed: int) -> tuple[int, str]:
    """Returns the exit status of the command, and the message to print."""
    try:
        status = command()
        if status == 0:
            sys.stdout.flush()  # raises the error of a full disk
        return status, ""
    except BrokenPipeError:
        return failed, ""
    except ModuleNotFoundError as error:
        return failed, _how_to_install(error)
    except (OSError, UserError) as error:
        return failed, f"{error}{_place_of_full_disk(error)}"
    except KeyboardInterrupt:
        return INTERRUPTED, "Stopped."


def caption_status(captioned: int, failures: int) -> int:
    """Returns the exit status of a command after so many images with captions, and failures."""
    if not captioned:
        return NONE_CAPTIONED
    return FAILED if failures else 0


def print_error(line: str) -> None:
    """Prints a line to stderr, with control characters escaped; nothing if stderr is closed or on a
    full disk."""
    with suppress(OSError):
        print(printable(line), file=sys.stderr)


def print_utf_8() -> None:
    """Switches standard output to UTF-8, whatever its encoding, until `run_command` returns."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def _place_of_full_disk(error: Exception) -> str:
    """The end of a message about a full disk that names no file."""
    is_of_stdout = isinstance(error, OSError) and error.errno == ENOSPC and not error.filename
    return ": 'standard output'" if is_of_stdout else ""


def _how_to_install(error: ModuleNotFoundError) -> str:
    package = (error.name or "").partition(".")[0]
    if package not in REQUIREMENTS:
        raise error
    return (
        f"Expected the package {package}, got none. In the folder of the clone, run: "
        f'pip install "{REQUIREMENTS[package]}"'
    )


@contextmanager
def _any_text_printable() -> Iterator[None]:
    """Inside the block, characters that the console cannot print are escaped, and text for a
    missing stream (under pythonw, in a service) is discarded."""
    with ExitStack() as stack:
        for name, redirect in (("stdout", redirect_stdout), ("stderr", redirect_stderr)):
            if getattr(sys, name) is None:
                null_device = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(redirect(null_device))
        stream = sys.stdout
        if hasattr(stream, "reconfigure"):  # a stream in memory accepts any text
            stack.callback(stream.reconfigure, encoding=stream.encoding, errors=stream.errors)
            stream.reconfigure(errors="backslashreplace")
            stack.callback(_flush_or_discard, stream)
        yield


def _flush_or_discard(stream: TextIO) -> None:
    """Flushes the stream. Discards text that a closed pipe or a full disk has refused: at exit,
    Python would try to write it again, and print an error."""
    try:
        stream.flush()
    except OSError:
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, stream.fileno())
        os.close(null_device)


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Inside the block, SIGTERM raises KeyboardInterrupt as Ctrl-C does. Yields a list to which the
    number of each signal is added."""
    signals: list[int] = []
    report, repetitions = sys.unraisablehook, []

    def interrupt(number: int, _frame: object) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    def interrupt_again(unraisable: Any) -> None:
        """Python ignores exceptions of some callbacks, such as those of garbage collection."""
        if unraisable.exc_type is KeyboardInterrupt:
            repetitions.append(threading.Timer(0.1, os.kill, (os.getpid(), signals[-1])))
            repetitions[-1].start()
        else:
            report(unraisable)

    if threading.current_thread() is not threading.main_thread():
        yield signals  # Python handles signals only in the main thread
        return
    sys.unraisablehook = interrupt_again
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as by nohup
        before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield signals
    finally:
        for repetition in repetitions:
            repetition.cancel()
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        sys.unraisablehook = report
