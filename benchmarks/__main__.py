"""All measurements, or some of them: `python -m benchmarks --help`."""

import argparse
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.findings import Finding, to_json, to_markdown
from benchmarks.fresh import in_fresh_process
from benchmarks.plan import Plan
from benchmarks.questions import ONLY_IF_NAMED, QUESTIONS, ask, machine_name
from captioning.files import write_atomically


def main(
    arguments: list[str] | None = None,
    measure: Callable[[str, Plan], list[Finding]] | None = None,
) -> int:
    """Prints the table; returns 1 where a target is missed, if that is to be strict."""
    options = _parser().parse_args(arguments)
    if not hasattr(os, "wait4"):
        print(
            "python -m benchmarks measures memory as Linux and macOS tell it. "
            f"Received: {platform.system()}. Run it there, or in WSL.",
            file=sys.stderr,
        )
        return 2
    plan = Plan(options.root, options.rounds, options.most_images, options.curve)
    names = options.question or [name for name in QUESTIONS if name not in ONLY_IF_NAMED]
    findings = []
    for name in names:
        print(f"{name}: {QUESTIONS[name]} ...", file=sys.stderr)
        findings += (measure or ask_fresh)(name, plan)
    machine = in_fresh_process(machine_name)
    text = (to_json if options.json else to_markdown)(machine, findings)
    print(text, end="")
    if options.output:
        with write_atomically(options.output, "w") as file:
            file.write(text)
    return int(options.strict and any(one.verdict == "no" for one in findings))


def ask_fresh(name: str, plan: Plan) -> list[Finding]:
    """Each question in a process of its own, so that none leaves anything to the next, and this one
    stays small: see `run_fresh`."""
    return in_fresh_process(ask, name, plan)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures this program beside the usual tutorial, on this machine.",
        epilog="Questions: " + "; ".join(f"{name}: {asks}" for name, asks in QUESTIONS.items()),
    )
    parser.add_argument(
        "question", nargs="*", type=_question, metavar="QUESTION", help="which to ask"
    )
    parser.add_argument("--json", action="store_true", help="numbers for programs")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write to this file")
    parser.add_argument(
        "--root",
        type=Path,
        metavar="FOLDER",
        help="measure with the data set in this root folder (default: data made like it)",
    )
    parser.add_argument(
        "--rounds", type=int, default=Plan.rounds, help="of each comparison (default %(default)s)"
    )
    parser.add_argument(
        "--most-images",
        type=int,
        default=Plan.most_images,
        metavar="N",
        help="how far the curve of growth goes (default %(default)s)",
    )
    parser.add_argument(
        "--curve", type=Path, metavar="FILE.svg", help="draw the curve of growth into this file"
    )
    return parser


def _question(text: str) -> str:
    if text not in QUESTIONS:
        raise argparse.ArgumentTypeError(f"wanted one of {', '.join(QUESTIONS)}, received {text}")
    return text


if __name__ == "__main__":
    sys.exit(main())
