"""Runs some of the cases, one after the other, in this process. Prints a line of JSON for each."""

import json
import re
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from tests.fuzz.damage import damage_bytes, damage_json, damage_text, whole_images
from tests.fuzz.routes import FileRoutes, ImageRoutes

_STATUS = Path("/proc/self/status")


def main() -> None:
    kind, seed, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    results = sys.stdout
    run = image_cases(folder) if kind == "images" else file_cases(folder)
    print("ready", file=results, flush=True)
    for line in sys.stdin:
        number = int(line)
        reset_peak()
        start, before = time.process_time(), peak_bytes()
        case = {"number": number, "route": kind, "damage": ""}
        try:
            run(np.random.default_rng([seed, number]), case)
        except Exception:
            case |= {"end": "traceback", "detail": traceback.format_exc()[-3000:]}
        case["seconds"] = time.process_time() - start
        case["bytes"] = peak_bytes() - (before if kind == "files" else 0)
        print(json.dumps(case), file=results, flush=True)


def image_cases(folder: Path):
    """Returns a function that damages an image and runs it."""
    images = whole_images()
    endings = sorted({ending for ending, _ in images})
    routes = ImageRoutes(folder)

    def run(random, case: dict) -> None:
        ending, content = images[random.integers(len(images))]
        _, other = images[random.integers(len(images))]
        way, content = damage_bytes(random, content, other)
        if random.integers(5) == 0:  # a wrong ending
            ending = str(random.choice(endings))
        path = folder / f"case-{case['number']}{ending}"
        path.write_bytes(content)
        case["damage"] = f"{path.name} {way}"
        case["route"], (case["end"], case["detail"]) = routes.run(random, path)
        path.unlink()

    return run


def file_cases(folder: Path):
    """Returns a function that damages a file of a root folder and runs a step that reads it."""
    routes = FileRoutes(folder)
    names = list(routes.FILES)

    def run(random, case: dict) -> None:
        name, other = random.choice(names, 2)
        content, other_content = ((folder / "root" / path).read_bytes() for path in (name, other))
        damage = damage_bytes
        if re.search(r"\.json$|\.jsonl$", name):
            damage = damage_json
        elif re.search(r"\.(txt|csv|xml)$", name):
            damage = damage_text
        way, content = damage(random, content, other_content)
        case["damage"] = f"{name} {way}"
        case["route"], (case["end"], case["detail"]) = routes.run(random, str(name), content)

    return run


def reset_peak() -> None:
    """Makes the peak of the memory that of now, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_bytes() -> int:
    """The peak of this process's memory; 0 where the system does not tell."""
    if not _STATUS.exists():
        return 0
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", _STATUS.read_text())[1])


if __name__ == "__main__":
    main()
