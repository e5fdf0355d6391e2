"""What can be asked, and asking it."""

from importlib import import_module

from benchmarks.findings import Finding
from benchmarks.plan import Plan

# Module of this package -> what it asks. Each has a function `run`, plan in, findings out.
QUESTIONS = {
    "cold_start": "how long until the first caption, and with how much memory",
    "features": "how fast features are extracted",
    "training": "how fast an epoch of training is",
    "many_images": "how many images a second are captioned",
    "search": "how fast a caption is searched for",
    "growth": "whether an image costs the same however many there are",
    "machine": "what the processor could do at best",
    "runtimes": "which runtime runs the encoder fastest (only if named)",
}
ONLY_IF_NAMED = ("runtimes",)


def ask(name: str, plan: Plan) -> list[Finding]:
    """Measures."""
    return import_module(f"benchmarks.{name}").run(plan)


def machine_name() -> str:
    """The machine in a line."""
    return import_module("benchmarks.machine").name()
