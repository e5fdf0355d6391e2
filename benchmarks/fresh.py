"""Work in a process of its own, which owes nothing to what ran before."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

_MAXRSS_A_MEGABYTE = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes

_built: list[Callable[[], Any]] = []  # in a worker process: its work


def in_fresh_process(function: Callable, *arguments) -> Any:
    """What the function returns or raises there. It is found by its module and name."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def worker_process(
    build: Callable[..., Callable[[], Any]], *arguments
) -> Iterator[Callable[[], Any]]:
    """Work that is done again and again in a process of its own, where `build(*arguments)` made it:
    what is called does it there, and returns or raises what comes of it. At the end, or after an
    error, the process ends. `build` is found by its module and name."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        process.submit(_build, build, arguments).result()
        yield lambda: process.submit(_work).result()


def _build(build: Callable[..., Callable[[], Any]], arguments: tuple) -> None:
    _built.append(build(*arguments))


def _work() -> Any:
    (work,) = _built
    return work()


@dataclass(frozen=True)
class Ran:
    """What became of a program: its output, its seconds from start to end, the most memory that it
    held, in megabytes."""

    output: str
    seconds: float
    peak_mb: float


def run_fresh(command: Sequence[str], folder: os.PathLike | str) -> Ran:
    """Runs a program in a process of its own, in `folder`. Raises ChildProcessError if it fails.

    Linux counts the memory of the process that starts another as the other's: whoever asks for
    `peak_mb` should be small.
    """
    with tempfile.TemporaryFile("w+") as complaints:
        start = time.perf_counter()
        with subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=complaints, text=True
        ) as process:
            output = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            complaints.seek(0)
            raise ChildProcessError(f"{' '.join(command)} ended with:\n{complaints.read()[-2000:]}")
    return Ran(output, seconds, used.ru_maxrss / _MAXRSS_A_MEGABYTE)
