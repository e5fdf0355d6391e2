"""Feeds damaged files to the program: `python -m tests.fuzz --cases 10000 --seed 0`.

Three of four cases are images, in all formats that Pillow writes; the others are the files of a
root folder, from `dataset.json` to the networks. Every case must end in a result, or in an error
that is one line and names the file, within 10 seconds of processor time; an image within 1 GB of
memory. Prints each case that ends otherwise, and a table. A case depends on its number and the seed
alone: `--only 123` repeats it.

The cases run in processes of their own, so that a crash of one is counted and stops nothing.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer

from tests.bombs import MAX_BYTES, MAX_SECONDS, PATIENCE

ROOT = Path(__file__).parents[2]
CASES_A_PROCESS = 250
FINE = ("result", "named error")


def main(arguments: list[str] | None = None) -> int:
    """Runs the cases. Returns 1 if one ends otherwise than it must."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="numbers of cases")
    options = parser.parse_args(arguments)
    os.environ["TQDM_DISABLE"] = "1"  # before tqdm is imported; also for the processes
    numbers = options.only or range(options.cases)
    ends: Counter[tuple[str, str]] = Counter()
    peaks = {"images": (0, 0), "files": (0, 0)}
    with TemporaryDirectory(prefix="fuzz-") as folder:
        for kind in peaks:
            selected = [number for number in numbers if is_image(number) == (kind == "images")]
            for case in run_cases(kind, options.seed, selected, Path(folder)):
                ends[case["route"], case["end"]] += 1
                seconds, size = peaks[kind]
                peaks[kind] = max(seconds, case["seconds"]), max(size, case["bytes"])
                if case["end"] not in FINE or options.only:
                    print(json.dumps(case), flush=True)
    print_table(ends)
    for kind, (seconds, size) in peaks.items():
        print(f"{kind}: at most {seconds:.1f} s of processor time and {size / 1e6:,.0f} MB a case")
    return int(any(end not in FINE for _, end in ends))


def is_image(number: int) -> bool:
    return number % 4 < 3


def run_cases(kind: str, seed: int, numbers: list[int], folder: Path) -> Iterator[dict]:
    """Yields number, route, damage, end, detail, seconds and bytes of each case."""
    if kind == "files" and numbers:
        from tests.fuzz.routes import make_root

        make_root(folder / "root")
    while numbers:
        batch, number_done = numbers[:CASES_A_PROCESS], 0
        for case in _run_in_process(kind, seed, batch, folder):
            number_done += 1
            if case["seconds"] > MAX_SECONDS:
                case["end"] = f"more than {MAX_SECONDS} s"
            if kind == "images" and case["bytes"] > MAX_BYTES:
                case["end"] = f"more than {MAX_BYTES / 1e6:,.0f} MB"
            yield case
        numbers = numbers[number_done:]


def _run_in_process(kind: str, seed: int, numbers: list[int], folder: Path) -> Iterator[dict]:
    """Yields the cases. If the process dies, the case that killed it is the last one."""
    command = [sys.executable, "-m", "tests.fuzz.worker", kind, str(seed)]
    with (
        TemporaryDirectory(dir=folder) as work,
        subprocess.Popen(
            [*command, work], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process,
    ):
        if kind == "files":
            Path(work, "root").symlink_to(folder / "root")
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("The process that runs the cases has not started.")
        for number in numbers:
            timer = Timer(PATIENCE, process.kill)
            timer.start()
            try:
                process.stdin.write(f"{number}\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = ""
            timer.cancel()
            if not line:
                status = process.wait()
                yield {
                    "number": number, "route": kind, "damage": "", "seconds": 0, "bytes": 0,
                    "end": "crash or hang", "detail": f"exit status {status}",
                }  # fmt: skip
                return
            yield json.loads(line)
        process.stdin.close()


def print_table(ends: Counter[tuple[str, str]]) -> None:
    columns = [*FINE, *sorted({end for _, end in ends} - {*FINE})]
    routes = sorted({route for route, _ in ends})
    print("".join(f"{title:>16}" for title in ("", *columns)))
    for route in routes:
        print(f"{route:>16}" + "".join(f"{ends[route, end]:16,}" for end in columns))
    totals = [sum(ends[route, end] for route in routes) for end in columns]
    print(f"{'all':>16}" + "".join(f"{total:16,}" for total in totals))


if __name__ == "__main__":
    sys.exit(main())
