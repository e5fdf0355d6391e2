"""How a command meets its console: it prints any text, and it ends in one line.

Not about what a command does.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

INTERRUPTED = 130  # the exit status that shells report after Ctrl-C

# Where each package comes from: the core ("."), or one of the extras in pyproject.toml.
REQUIREMENTS = {
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
    "tensorflow": ".[train]",
    "nncf": ".[quantise]",
}


def run_command(command: Callable[[], int], failed: int) -> int:
    """Runs a command and returns its exit status.

    An error that the user can mend becomes one line on stderr and the status `failed`; so does a
    missing package. Ctrl-C and SIGTERM end in "Stopped." and `INTERRUPTED`. A reader that closes
    the pipe early, as `head` does, ends the command without a word. Signals and streams are as
    before when it returns.
    """
    with _any_text_printable(), _sigterm_as_ctrl_c():
        try:
            status = command()
            if status == 0:
                sys.stdout.flush()  # a full disk shows only now
            return status
        except BrokenPipeError:
            return failed
        except ModuleNotFoundError as error:
            print(_how_to_install(error), file=sys.stderr)
            return failed
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            return failed
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
            return INTERRUPTED


def print_utf_8() -> None:
    """Makes standard output UTF-8, whatever the console speaks, until `run_command` ends."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


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
    """Meanwhile a character that the console lacks is printed escaped, and a missing stream (under
    pythonw, in a service) swallows what is printed."""
    with ExitStack() as stack:
        for name, redirect in (("stdout", redirect_stdout), ("stderr", redirect_stderr)):
            if getattr(sys, name) is None:
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(redirect(nowhere))
        stream = sys.stdout
        if hasattr(stream, "reconfigure"):  # a stream in memory takes any text as it is
            stack.callback(stream.reconfigure, encoding=stream.encoding, errors=stream.errors)
            stream.reconfigure(errors="backslashreplace")
            stack.callback(_flush_or_discard, stream)
        yield


def _flush_or_discard(stream: TextIO) -> None:
    """Text that a closed pipe or a full disk has refused goes nowhere: Python would try again at
    exit, and complain."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread alone
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
