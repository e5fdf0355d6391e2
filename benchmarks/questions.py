"""The questions: functions that take the command's options and return rows of the table. They write
their files into `options.folder`."""

from argparse import Namespace

import numpy as np

from benchmarks.data import IMAGES, VOCABULARY_SIZES, provide_photographs
from benchmarks.growth import growth
from benchmarks.machine import list_units, machine, runtimes
from benchmarks.measure import CHECKOUT, call, run_python, seconds_per_item
from benchmarks.table import Row, summarise

_IMAGE = CHECKOUT / "examples" / "breaking_wave.jpg"
_PHOTOGRAPHS = 256
_BATCH_SIZE = 32  # images, in the tutorial's `predict`
_MIN_COLD_STARTS = 5  # they are short, and differ
_SEARCHED_IMAGES = 200
# The tutorial's share of the work in a round: all of it would take too long.
_TUTORIAL_CAPTIONS = 3
_TUTORIAL_TRAINING_IMAGES = 40


def cold_start(options: Namespace) -> list[Row]:
    """How long does the first caption take, and how much memory?"""
    call("benchmarks.tutorial:write_weights", options.folder)
    rounds = [
        (
            run_python("-m", "benchmarks.tutorial", _IMAGE, options.folder),
            run_python("Testing_caption_generator.py", _IMAGE),
        )
        for _ in range(1 + max(options.rounds, _MIN_COLD_STARTS))
    ]
    # The first round is left out: it reads the files from disk.
    (tutorial_s, tutorial_mb), (program_s, program_mb) = np.transpose(rounds[1:], (1, 2, 0))
    return [
        Row("first caption from a cold start", program_s, "s", tutorial_s, "≤ 1.2 s"),
        Row("its peak memory", program_mb, "MB", tutorial_mb, "≤ 600 MB"),
    ]


def features(options: Namespace) -> list[Row]:
    """How fast are features extracted?"""
    paths = provide_photographs(options.folder, _PHOTOGRAPHS, options.images)
    single, batched, program = 1 / seconds_per_item(
        ("benchmarks.tutorial:extract", paths[: _BATCH_SIZE // 4], 1),
        ("benchmarks.tutorial:extract", paths[:_BATCH_SIZE], _BATCH_SIZE),
        ("benchmarks.program:extract", paths),
        rounds=options.rounds,
    )
    target = "≥ 5 times" if "avx512_bf16" in list_units() else "≥ 1.5 times"
    name = "feature extraction, the tutorial's in batches of"
    return [
        Row(f"{name} 1", program, "images/s", single),
        Row(f"{name} {_BATCH_SIZE}", program, "images/s", batched, target),
    ]


def training(options: Namespace) -> list[Row]:
    """How fast is an epoch of training?"""
    rows = []
    for words in VOCABULARY_SIZES.values():
        tutorial, program = IMAGES * seconds_per_item(
            ("benchmarks.tutorial:train", words, _TUTORIAL_TRAINING_IMAGES),
            ("benchmarks.program:train", words, IMAGES),
            rounds=options.rounds,
        )
        name = f"an epoch of the merge model, {words:,} words, the tutorial's scaled from "
        name += f"{_TUTORIAL_TRAINING_IMAGES} images"
        rows.append(Row(name, program, "s", tutorial, "≥ 35 times"))
    return rows


def many_images(options: Namespace) -> list[Row]:
    """How many images a second are captioned?"""
    paths = provide_photographs(options.folder, _PHOTOGRAPHS, options.images)
    tutorial, program, encoding, search = seconds_per_item(
        ("benchmarks.tutorial:caption", paths[:_TUTORIAL_CAPTIONS]),
        ("benchmarks.program:caption", paths),
        ("benchmarks.program:encode", paths),
        ("benchmarks.program:search_shipped", paths),
        rounds=options.rounds,
    )
    share, note = 100 * search / encoding, f"{summarise(1000 * search)} ms an image"
    return [
        Row("many images, beam 3", 1 / program, "images/s", 1 / tutorial, "≥ 30 images/s"),
        Row("the search, as a share of the encoder's time", share, "%", target="≤ 10 %", note=note),
    ]


def search(options: Namespace) -> list[Row]:
    """How fast are captions searched?"""
    call("benchmarks.program:export_untrained_decoder", options.folder)
    tutorial, greedy, beam = 1 / seconds_per_item(
        ("benchmarks.tutorial:search", _TUTORIAL_CAPTIONS),
        ("benchmarks.program:search", options.folder, _SEARCHED_IMAGES, 1),
        ("benchmarks.program:search", options.folder, _SEARCHED_IMAGES, 3),
        rounds=options.rounds,
    )
    name = f"the search for {_SEARCHED_IMAGES} images, the tutorial's greedy, beam"
    return [
        Row(f"{name} 1", greedy, "captions/s", tutorial, "≥ 20 times"),
        Row(f"{name} 3", beam, "captions/s", tutorial, "≥ 20 times"),
    ]


QUESTIONS = {
    question.__name__: question
    for question in (
        cold_start, features, training, many_images, search, growth, machine, runtimes
    )
}  # fmt: skip
