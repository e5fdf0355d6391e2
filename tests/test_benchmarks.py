import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import growth, machine
from benchmarks.data import VOCABULARY_SIZES, make_training_set, provide_photographs
from benchmarks.measure import CHECKOUT, run_python, seconds_per_item
from benchmarks.table import Row, to_markdown


def write_name(name, log):
    """A task that writes its name and its process into a file, and counts two items a round."""

    def work():
        with open(log, "a") as file:
            print(name, os.getpid(), file=file)
        return 2

    return work


def test_tasks_take_turns_in_processes_of_their_own(tmp_path):
    log = tmp_path / "log"
    tasks = [("test_benchmarks:write_name", name, log) for name in "AB"]
    assert seconds_per_item(*tasks, rounds=2).shape == (2, 2)
    names, processes = zip(*map(str.split, log.read_text().splitlines()), strict=True)
    assert "".join(names) == "AB" * 3  # the first turn warms up
    assert len({*processes, str(os.getpid())}) == 3


def test_the_table_shows_ratios_within_each_round_and_which_targets_are_met():
    rows = [
        Row("the run", np.array([3, 15, 8]), "m/s", np.array([1, 3, 2]), "≥ 4 times"),
        Row("the crawl", np.array([2.0]), "s", np.array([1.0]), "≤ 1.5 s", "uphill"),
        Row("the flight", np.array([1234.5, 0.01234, 2345.6]), "m/s"),
    ]
    head, lines, *_ = to_markdown("two cores", rows).split("\n\n")
    assert head == "two cores."
    assert lines.splitlines() == [
        "| measurement | the usual tutorial | this program | ratio | target | met |",
        "| --- | --- | --- | --- | --- | --- |",
        "| the run | 2 (1–3) m/s | 8 (3–15) m/s | 4 (3–5) | ≥ 4 times | yes |",
        "| the crawl | 1 s | 2 s, uphill | 0.5 | ≤ 1.5 s | no |",
        "| the flight |  | 1,234 (0.0123–2,346) m/s |  |  |  |",
    ]


def test_the_command_answers_the_named_questions(monkeypatch, capsys):
    def search(options):
        """How slow?"""
        return [Row("rounds", np.array([options.rounds]), "times")]

    monkeypatch.setitem(command.QUESTIONS, "search", search)
    command.main(["search", "--rounds", "5"])
    output = capsys.readouterr()
    assert output.err == "search: How slow?\n"
    assert "\n| rounds |  | 5 times |  |  |  |\n" in output.out
    with pytest.raises(SystemExit):
        command.main(["flying"])
    assert "Expected one of cold_start, features" in capsys.readouterr().err


def test_a_program_is_timed_and_its_memory_measured():
    seconds, peak_mb = run_python("-c", "import time; b'x' * 100_000_000; time.sleep(0.2)")
    assert 0.2 <= seconds < 30
    assert peak_mb > 95
    with pytest.raises(ChildProcessError, match="no such luck"):
        run_python("-c", "raise ValueError('no such luck')")


def test_the_process_that_measures_imports_nothing_heavy():
    code = "import sys, benchmarks.__main__; print(*sys.modules)"
    output = subprocess.check_output([sys.executable, "-c", code], cwd=CHECKOUT, text=True)
    assert "benchmarks.growth" in output.split()
    assert not {"keras", "tensorflow", "openvino", "PIL"} & set(output.split())


def test_growth_compares_the_largest_folder_with_a_thousand_images():
    costs = {100: (9.0, 50), 1000: (2.0, 50), 10_000: (3.0, 60)}
    *_, time, memory = growth.make_rows("reading", costs)
    assert time.name == "reading: time per image, 10,000 images against 1,000"
    assert (time.program, time.is_met) == (1.5, False)
    assert (memory.program, memory.is_met) == (1.2, True)


def test_the_machine_is_described(monkeypatch):
    cpuinfo = {"model name": "Abacus 9000", "flags": "fpu avx2 avx512f"}
    monkeypatch.setattr(machine, "_read_cpuinfo", cpuinfo.get)
    assert "cores of Abacus 9000 (avx2, avx512f), " in machine.describe_machine()


def test_the_generated_data_has_the_shape_of_flickr8k(tmp_path):
    from PIL import Image

    vocabulary, captions, features = make_training_set(VOCABULARY_SIZES[1], images=300)
    lengths = [len(ids) - 2 for image_captions in captions.values() for ids in image_captions]
    assert len(lengths) == 1500
    assert sum(lengths) / 1500 == pytest.approx(10.8, abs=0.4)
    assert len(vocabulary) == 7375
    assert features["00007.jpg"].shape == (2048,)
    assert [Image.open(path).size for path in provide_photographs(tmp_path, 2)] == [(500, 375)] * 2
    with pytest.raises(FileNotFoundError, match="Expected 3 JPEG files in .*, got 2"):
        provide_photographs(tmp_path, 3, source=tmp_path)


@pytest.mark.slow
def test_the_tutorial_expands_a_caption_into_prefixes_and_one_hot_targets():
    from benchmarks import tutorial

    prefixes, targets = tutorial.expand([1, 5, 4, 2], vocabulary_size=6)
    assert prefixes.shape == (3, 38)
    assert prefixes[:, -4:].tolist() == [[0, 0, 0, 1], [0, 0, 1, 5], [0, 1, 5, 4]]
    assert targets.argmax(-1).tolist() == [5, 4, 2]
    assert targets.sum(-1).tolist() == [1, 1, 1]


@pytest.mark.slow
def test_each_side_does_all_of_its_work(tmp_path):
    from benchmarks import program, tutorial

    paths = provide_photographs(tmp_path, 2)
    program.export_untrained_decoder(tmp_path)
    works = [
        tutorial.extract(paths, 2),
        tutorial.caption(paths),
        tutorial.search(2),
        tutorial.train(VOCABULARY_SIZES[5], images=2),
        program.extract(paths),
        program.encode(paths),
        program.caption(paths),
        program.search_shipped(paths),
        program.search(tmp_path, 2, beam_width=3),
        program.train(VOCABULARY_SIZES[5], images=2),
    ]
    assert [work() for work in works] == [2] * 10


@pytest.mark.slow
def test_growth_is_measured_with_a_tiny_model(tmp_path):
    from benchmarks import program

    program.export_tiny_model(tmp_path / "model")
    provide_photographs(tmp_path / "photographs", 2, size=(64, 48))
    runs = growth.run_tasks(tmp_path, 3)
    assert list(runs) == ["captioning", "resuming a finished run", "extracting features"]
    assert len((tmp_path / "3.csv").read_text("utf-8").splitlines()) == 4
