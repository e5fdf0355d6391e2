"""The questions: each is a function that takes the options and returns rows of the table."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import growth, machine, runtimes
from benchmarks.data import IMAGES, VOCABULARY_SIZES, photographs
from benchmarks.measure import (
    CHECKOUT,
    Options,
    Samples,
    Task,
    call_in_process,
    items_per_second,
    run_program,
    seconds_per_item,
)
from benchmarks.table import Row

_IMAGE = str(CHECKOUT / "examples" / "breaking_wave.jpg")
_PHOTOGRAPHS = 256
_BATCH = 32  # images, in the tutorial's `predict`
_MIN_COLD_STARTS = 5  # they are short, and differ
_SEARCHED_IMAGES = 200
# What the tutorial does in a round: as much as the program would take longer than anyone waits.
_TUTORIAL_CAPTIONS = 3
_TUTORIAL_TRAINING_IMAGES = 40

_COUNT_MODULES = (
    "import sys, captioning; captioning.load().caption(sys.argv[1]);"
    "print(sum(name.split('.')[0] in ('tensorflow', 'keras') for name in sys.modules))"
)


def cold_start(options: Options) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        call_in_process("benchmarks.tutorial:write_weights", Path(folder))
        commands = (
            [sys.executable, "-m", "benchmarks.tutorial", _IMAGE, folder],
            [sys.executable, "Testing_caption_generator.py", _IMAGE],
        )
        rounds = [
            [run_program(command, CHECKOUT) for command in commands]
            for _ in range(1 + max(options.rounds, _MIN_COLD_STARTS))
        ]
    tutorial, program = zip(*rounds[1:], strict=True)  # in the first, files are read from disk
    imported = run_program([sys.executable, "-c", _COUNT_MODULES, _IMAGE], CHECKOUT).output
    (tutorial_s, program_s), (tutorial_mb, program_mb) = (
        [Samples(tuple(getattr(run, name) for run in runs)) for runs in (tutorial, program)]
        for name in ("seconds", "peak_mb")
    )
    return [
        Row("first caption from a cold start", program_s, "s", tutorial_s, at_most=1.2),
        Row("its peak memory", program_mb, "MB", tutorial_mb, at_most=600),
        Row("modules of TensorFlow and Keras it imports", Samples((float(imported),)), at_most=0),
    ]


def features(options: Options) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder), _PHOTOGRAPHS, options.images)
        single, batched, program = items_per_second(
            Task("benchmarks.tutorial:extract", paths[: _BATCH // 4], 1),
            Task("benchmarks.tutorial:extract", paths[:_BATCH], _BATCH),
            Task("benchmarks.program:extract", paths),
            rounds=options.rounds,
        )
    times = 5 if "avx512_bf16" in machine.units() else 1.5
    name = "feature extraction, the tutorial's in batches of"
    return [
        Row(f"{name} 1", program, "images/s", single),
        Row(f"{name} {_BATCH}", program, "images/s", batched, times=times),
    ]


def training(options: Options) -> list[Row]:
    rows = []
    for words in VOCABULARY_SIZES.values():
        tutorial, program = (
            seconds.map(lambda per_image: per_image * IMAGES)
            for seconds in seconds_per_item(
                Task("benchmarks.tutorial:train", words, _TUTORIAL_TRAINING_IMAGES),
                Task("benchmarks.program:train", words),
                rounds=options.rounds,
            )
        )
        name = f"an epoch of the merge model, {words:,} words, the tutorial's scaled from "
        name += f"{_TUTORIAL_TRAINING_IMAGES} images"
        rows.append(Row(name, program, "s", tutorial, times=60))
    return rows


def many_images(options: Options) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder), _PHOTOGRAPHS, options.images)
        tutorial, program, encoding, search = seconds_per_item(
            Task("benchmarks.tutorial:caption", paths[:_TUTORIAL_CAPTIONS]),
            Task("benchmarks.program:caption", paths),
            Task("benchmarks.program:encode", paths),
            Task("benchmarks.program:search_shipped", paths),
            rounds=options.rounds,
        )
    share = (search / encoding).map(lambda ratio: 100 * ratio)
    milliseconds = f"{search.map(lambda seconds: 1000 * seconds)} ms an image"
    return [
        Row("many images, beam 3", 1 / program, "images/s", 1 / tutorial, at_least=30),
        Row("the search, of the encoder's time", share, "%", note=milliseconds, at_most=10),
    ]


def search(options: Options) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        call_in_process("benchmarks.program:export_untrained_decoder", Path(folder))
        tutorial, *program = items_per_second(
            Task("benchmarks.tutorial:search", _TUTORIAL_CAPTIONS),
            Task("benchmarks.program:search", Path(folder), _SEARCHED_IMAGES, 1),
            Task("benchmarks.program:search", Path(folder), _SEARCHED_IMAGES, 3),
            rounds=options.rounds,
        )
    name = f"the search for {_SEARCHED_IMAGES} images, the tutorial's greedy, beam"
    return [
        Row(f"{name} {width}", captions, "captions/s", tutorial, times=20)
        for width, captions in zip((1, 3), program, strict=True)
    ]


QUESTIONS: dict[str, tuple[Callable[[Options], list[Row]], str]] = {
    "cold_start": (cold_start, "how long the first caption takes, and how much memory"),
    "features": (features, "how fast features are extracted"),
    "training": (training, "how fast an epoch of training is"),
    "many_images": (many_images, "how many images a second are captioned"),
    "search": (search, "how fast captions are searched"),
    "growth": (growth.growth, "whether an image costs the same however many there are"),
    "machine": (machine.machine, "how much of the processor's speed the encoder uses"),
    "runtimes": (runtimes.runtimes, "which runtime is the fastest for the encoder (only if named)"),
}
ONLY_IF_NAMED = ("runtimes",)
