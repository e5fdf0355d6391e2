"""How long until the first caption, from nothing, and with how much memory?

Each time a new process; files that were read before are in the system's memory on both sides. This
module imports nothing heavy: see `run_fresh`.
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.findings import Finding, Target
from benchmarks.fresh import Ran, in_fresh_process, run_fresh
from benchmarks.plan import Plan
from benchmarks.timing import Spread
from captioning.paths import Paths

_ROOT = Paths().root
_IMAGE = _ROOT / "examples" / "breaking_wave.jpg"
_ROUNDS = 5  # or more: starts are short, and differ

# Runs the command as Python does, then says whether TensorFlow came with it.
_WITH_MODULES = (
    "import runpy, sys\n"
    "sys.path.insert(0, '.')\n"
    "try:\n"
    "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
    "except SystemExit:\n"
    "    pass\n"
    "print(sum(name.split('.')[0] in ('tensorflow', 'keras') for name in sys.modules))\n"
)


def run(plan: Plan) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        in_fresh_process(_prepare, Path(folder))
        return measure(Path(folder), max(plan.rounds, _ROUNDS))


def measure(folder: Path, rounds: int) -> list[Finding]:
    """`folder` holds the weights that the tutorial's script reads."""
    ours = [sys.executable, "Testing_caption_generator.py", "-i", str(_IMAGE)]
    theirs = [sys.executable, "-m", "benchmarks.tutorial", str(_IMAGE), str(folder)]
    ran: dict[str, list[Ran]] = {"theirs": [], "ours": []}
    for _ in range(1 + rounds):
        ran["theirs"].append(run_fresh(theirs, _ROOT))
        ran["ours"].append(run_fresh(ours, _ROOT))
    their_seconds, our_seconds = (Spread(tuple(r.seconds for r in of[1:])) for of in ran.values())
    their_peak, our_peak = (Spread(tuple(r.peak_mb for r in of[1:])) for of in ran.values())
    return [
        Finding(
            "first caption from a cold start",
            our_seconds,
            "s",
            Target(1.2, is_limit=True),
            f"{their_seconds} s",
        ),
        Finding(
            "first caption, beside the usual tutorial",
            their_seconds.over(our_seconds),
            "times",
            None,
            f"{their_seconds} s",
            f"{our_seconds} s",
        ),
        Finding(
            "most memory held meanwhile",
            our_peak,
            "MB",
            Target(600, is_limit=True),
            f"{their_peak} MB",
        ),
        Finding(
            "modules of TensorFlow and Keras imported to caption",
            Spread((float(heavy_modules()),)),
            "",
            Target(0, is_limit=True),
        ),
    ]


def heavy_modules() -> int:
    """How many modules of TensorFlow and Keras the command has imported when it has captioned."""
    start = f"import sys; sys.argv = ['Testing_caption_generator.py', '-i', {str(_IMAGE)!r}]\n"
    return int(run_fresh([sys.executable, "-c", start + _WITH_MODULES], _ROOT).output.split()[-1])


def _prepare(folder: Path) -> None:
    from benchmarks import tutorial
    from benchmarks.world import made_world

    tutorial.write_weights(folder, made_world(images=1).vocabulary, tutorial.MAX_LENGTH)
