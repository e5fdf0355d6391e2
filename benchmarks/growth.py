"""Does an image cost the same, in time and in memory, however many there are?

The command captions a folder, then resumes with its finished output file; then the feature maps of
the folder are extracted. The time for a folder of one image is subtracted, so that starting does
not count. A tiny encoder and tiny photographs show the cost of everything around the encoder. The
images are links to a few hundred photographs, and each folder is measured once.
"""

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.data import provide_photographs
from benchmarks.measure import call, run_python
from benchmarks.table import Row

_PHOTOGRAPHS = 300
_BASE = 1000  # images in the folder that the largest is compared with: 100 take no time
_NOISE_MS = 0.1  # an image: starts differ by more than a thousand images of less cost


def growth(options: Namespace) -> list[Row]:
    """Does an image cost the same, however many there are?"""
    sizes = [100]
    while sizes[-1] * 10 <= options.most_images:
        sizes.append(sizes[-1] * 10)
    call("benchmarks.program:export_tiny_model", options.folder / "model")
    provide_photographs(options.folder / "photographs", _PHOTOGRAPHS, size=(64, 48))
    runs = [run_tasks(options.folder, size) for size in (1, *sizes)]
    rows = []
    for task in runs[0]:
        (start, _), *measured = (run[task] for run in runs)
        costs = {
            size: (1000 * max(seconds - start, 0) / size, memory)
            for size, (seconds, memory) in zip(sizes, measured, strict=True)
        }
        rows += make_rows(task, costs)
    return rows


def run_tasks(folder: Path, size: int) -> dict[str, tuple[float, float]]:
    """Runs each task on `size` images with the tiny `model` and the `photographs` in `folder`;
    returns the seconds and the peak memory in MB."""
    model, images = folder / "model", folder / str(size)
    originals = sorted((folder / "photographs").iterdir())
    images.mkdir()
    for number in range(size):
        os.link(originals[number % len(originals)], images / f"{number:06}.jpg")
    output = images.with_suffix(".csv")
    command = ("Testing_caption_generator.py", images, "--model", model, "--output", output)
    return {
        "captioning": run_python(*command),
        "resuming a finished run": run_python(*command),
        "extracting features": call("benchmarks.program:extract_folder", model, images),
    }


def make_rows(task: str, costs: Mapping[int, tuple[float, float]]) -> list[Row]:
    """A row for each folder, and how the cost grows from `_BASE` images to the largest folder.

    `costs`: number of images -> milliseconds an image, without the start, and peak memory in MB.
    """
    rows = [
        Row(f"{task}, {size:,} images", np.array([milliseconds]), "ms", note=f"{memory:.0f} MB")
        for size, (milliseconds, memory) in costs.items()
    ]
    largest = max(costs)
    if largest > _BASE:
        (time, memory), (base_time, base_memory) = costs[largest], costs[_BASE]
        growths = {
            "time per image": max(time, _NOISE_MS) / max(base_time, _NOISE_MS),
            "memory": memory / base_memory,
        }
        for name, ratio in growths.items():
            name = f"{task}: {name}, {largest:,} images against {_BASE:,}"
            rows.append(Row(name, np.array([ratio]), "times", target="≤ 1.25 times"))
    return rows
