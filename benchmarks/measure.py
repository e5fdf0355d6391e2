"""Times work. Each task runs in its own process, and the tasks take turns (A B A B ...): whatever
else the machine does slows all of them alike, so the ratio within a round is fair."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

CHECKOUT = Path(__file__).parents[1]  # programs start here
_MAXRSS_PER_MEGABYTE = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes

Work = Callable[[], int]
"""Processes some items and returns their number."""


@dataclass(frozen=True)
class Options:
    """`images`: a folder of photographs to measure with; None for generated ones. `most_images`
    and `curve` are for `growth`: its largest folder, and the SVG file to draw."""

    images: Path | None = None
    rounds: int = 3
    most_images: int = 10_000
    curve: Path | None = None


@dataclass(frozen=True)
class Samples:
    """One measurement of every round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    def map(self, function: Callable[[float], float]) -> "Samples":
        return Samples(tuple(map(function, self.values)))

    def __truediv__(self, other: "Samples") -> "Samples":
        """The ratio within each round."""
        return Samples(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def __rtruediv__(self, number: float) -> "Samples":
        return self.map(lambda value: number / value)

    def __str__(self) -> str:
        """The median, then the lowest and the highest: "3 (2–5)"."""
        numbers = self.median, min(self.values), max(self.values)
        middle, lowest, highest = (f"{n:.3g}" if abs(n) < 1000 else f"{n:,.0f}" for n in numbers)
        return middle if lowest == highest else f"{middle} ({lowest}–{highest})"


class Task:
    """`function`, as "module:name", gets `arguments` in the task's own process and returns the
    `Work` that is timed. The name is a string so that this process does not import the module."""

    def __init__(self, function: str, *arguments):
        self.function = function
        self.arguments = arguments


def seconds_per_item(*tasks: Task, rounds: int) -> list[Samples]:
    """Runs every task once untimed, to warm up, and then once a round."""
    with ExitStack() as stack:
        processes = [stack.enter_context(_new_process()) for _ in tasks]
        for process, task in zip(processes, tasks, strict=True):
            process.submit(_prepare, task).result()
        timed = [
            [process.submit(_time_work).result() for process in processes] for _ in range(rounds)
        ]
    return [Samples(seconds) for seconds in zip(*timed, strict=True)]


def items_per_second(*tasks: Task, rounds: int) -> list[Samples]:
    return [1 / seconds for seconds in seconds_per_item(*tasks, rounds=rounds)]


def call_in_process(function: str, *arguments) -> Any:
    """Calls "module:name" in a new process, so that its imports stay out of this one."""
    with _new_process() as process:
        return process.submit(_call, function, arguments).result()


@dataclass(frozen=True)
class ProgramRun:
    """Output, seconds from start to exit and peak memory in MB of a program."""

    output: str
    seconds: float
    peak_mb: float


def run_program(command: Sequence[str], folder: os.PathLike | str) -> ProgramRun:
    """Runs a program in `folder`. Raises ChildProcessError with its last output if it fails.

    Linux counts the memory of the calling process towards `peak_mb`, so the caller must be small.
    """
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        with subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise ChildProcessError(f"{' '.join(command)} failed:\n{errors.read()[-2000:]}")
    return ProgramRun(output, seconds, usage.ru_maxrss / _MAXRSS_PER_MEGABYTE)


def _new_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"))


_work: Work | None = None  # in the process of a task


def _prepare(task: Task) -> None:
    global _work
    _work = _call(task.function, task.arguments)
    _work()


def _time_work() -> float:
    start = time.perf_counter()
    items = _work()
    return (time.perf_counter() - start) / items


def _call(function: str, arguments: tuple) -> Any:
    module, name = function.split(":")
    return getattr(import_module(module), name)(*arguments)
