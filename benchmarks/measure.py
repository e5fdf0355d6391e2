"""Times work. Each task runs in its own process, and the tasks take turns (A B A B ...): whatever
else the machine does slows all of them alike, so the ratio within a round is fair."""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from pkgutil import resolve_name
from subprocess import DEVNULL, PIPE, Popen

import numpy as np

CHECKOUT = Path(__file__).parents[1]  # programs start here
_MAXRSS_PER_MEGABYTE = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes
_CALL = "import pkgutil, sys; pkgutil.resolve_name(sys.argv[1])(*sys.argv[2:])"

Work = Callable[[], int]
"""Processes some items and returns their number."""


def seconds_per_item(*tasks: tuple, rounds: int) -> np.ndarray:
    """Runs every task once to warm up, then once a round, and returns the times: float64 (tasks,
    rounds).

    A task is a tuple: the name of a function, "module:function", and its arguments. The function is
    called in the process of the task and returns the `Work` that is timed. Given by its name, it is
    not imported in this process.
    """
    with ExitStack() as stack:
        processes = [
            stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), _prepare, task))
            for task in tasks
        ]
        times = [
            [process.submit(_time_work).result() for process in processes]
            for _ in range(1 + rounds)
        ]
    return np.transpose(times[1:])


def run_python(*arguments: str | Path) -> tuple[float, float]:
    """Runs Python with these arguments; returns the seconds from start to exit and the peak memory
    in MB. Raises ChildProcessError with the last output to stderr if the program fails.

    Linux counts the memory of the calling process towards the peak, so the caller must be small.
    """
    command = [sys.executable, *arguments]
    start = time.perf_counter()
    with Popen(command, cwd=CHECKOUT, stdout=DEVNULL, stderr=PIPE, text=True) as process:
        errors = process.stderr.read()  # waits for the exit
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ChildProcessError(f"{' '.join(map(str, arguments))} failed:\n{errors[-2000:]}")
    return seconds, usage.ru_maxrss / _MAXRSS_PER_MEGABYTE


def call(function: str, *arguments: str | Path) -> tuple[float, float]:
    """Calls "module:function" with the arguments as strings by `run_python`, so that its imports
    stay out of this process."""
    return run_python("-c", _CALL, function, *arguments)


_work: Work  # in the process of a task


def _prepare(function: str, *arguments) -> None:
    global _work
    _work = resolve_name(function)(*arguments)


def _time_work() -> float:
    start = time.perf_counter()
    items = _work()
    return (time.perf_counter() - start) / items
