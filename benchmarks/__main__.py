"""Measures this program beside the usual tutorial: `python -m benchmarks --help`."""

import argparse
import os
import sys
from pathlib import Path

from benchmarks import machine
from benchmarks.measure import Options
from benchmarks.questions import ONLY_IF_NAMED, QUESTIONS
from benchmarks.table import to_json, to_markdown


def main(arguments: list[str] | None = None) -> int:
    """Prints the table. Returns 1 if `--strict` and a target is missed, 2 on other systems."""
    parsed = _parser().parse_args(arguments)
    if not hasattr(os, "wait4"):
        print("Expected Linux or macOS, got neither. Measure there, or in WSL.", file=sys.stderr)
        return 2
    options = Options(parsed.images, parsed.rounds, parsed.most_images, parsed.curve)
    rows = []
    for name in parsed.question or [name for name in QUESTIONS if name not in ONLY_IF_NAMED]:
        ask, description = QUESTIONS[name]
        print(f"{name}: {description} ...", file=sys.stderr)
        rows += ask(options)
    print((to_json if parsed.json else to_markdown)(machine.name(), rows))
    return int(parsed.strict and any(row.is_met is False for row in rows))


def _parser() -> argparse.ArgumentParser:
    descriptions = "; ".join(f"{name}: {text}" for name, (_, text) in QUESTIONS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures this program beside the usual tutorial, on this machine.",
        epilog=f"Questions: {descriptions}.",
    )
    add = parser.add_argument
    add("question", nargs="*", metavar="QUESTION", type=_question, help="default: all but runtimes")
    add("--images", type=Path, metavar="FOLDER", help="measure with these photographs")
    add("--rounds", type=int, default=Options.rounds, help="default: %(default)s")
    add("--json", action="store_true", help="print JSON")
    add("--strict", action="store_true", help="exit with 1 if a target is missed")
    add(
        "--most-images",
        type=int,
        default=Options.most_images,
        metavar="N",
        help="the largest folder of `growth` (default: %(default)s)",
    )
    add("--curve", type=Path, metavar="FILE.svg", help="draw the curve of `growth`")
    return parser


def _question(text: str) -> str:
    if text not in QUESTIONS:
        raise argparse.ArgumentTypeError(f"Expected one of {', '.join(QUESTIONS)}, got {text}.")
    return text


if __name__ == "__main__":
    sys.exit(main())
