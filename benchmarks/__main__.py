"""Measures this program beside the usual tutorial: `python -m benchmarks --help`."""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.questions import QUESTIONS
from benchmarks.table import to_markdown


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    options = _parser().parse_args(arguments)
    rows = []
    for name in options.questions or [name for name in QUESTIONS if name != "runtimes"]:
        print(f"{name}: {QUESTIONS[name].__doc__}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            options.folder = Path(folder)
            rows += QUESTIONS[name](options)
    print(to_markdown(describe_machine(), rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures this program beside the usual tutorial, on Linux or macOS.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{name}: {question.__doc__}" for name, question in QUESTIONS.items()),
    )
    add = parser.add_argument
    add(
        "questions", nargs="*", type=_question, metavar="QUESTION", help="all but runtimes if empty"
    )
    add("--images", type=Path, metavar="FOLDER", help="measure with the photographs in it")
    add("--rounds", type=int, default=3, help="default: %(default)s")
    add("--most-images", type=int, default=10_000, metavar="N", help="the largest folder of growth")
    return parser


def _question(name: str) -> str:
    if name not in QUESTIONS:
        raise argparse.ArgumentTypeError(f"Expected one of {', '.join(QUESTIONS)}, got {name}.")
    return name


if __name__ == "__main__":
    main()
