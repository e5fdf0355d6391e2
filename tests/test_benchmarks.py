import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import growth, machine
from benchmarks.data import VOCABULARY_SIZES, photographs, training_set
from benchmarks.growth import Cost
from benchmarks.measure import CHECKOUT, Samples, Task, run_program, seconds_per_item
from benchmarks.table import Row, to_json, to_markdown

FAST = Row("the run", Samples((3.0, 5.0, 4.0)), "m/s", Samples((1.0, 1.0, 1.0)), times=4)
SLOW = Row("the crawl", Samples((2.0,)), "s", Samples((1.0,)), "uphill", at_most=1.5)


def write_name(name, log):
    """A task that writes its name and its process into a file, and counts two items a round."""

    def work():
        with open(log, "a") as file:
            print(name, os.getpid(), file=file)
        return 2

    return work


def test_tasks_take_turns_in_processes_of_their_own(tmp_path):
    log = tmp_path / "log"
    tasks = [Task("test_benchmarks:write_name", name, log) for name in "AB"]
    measured = seconds_per_item(*tasks, rounds=2)
    names, processes = zip(*map(str.split, log.read_text().splitlines()), strict=True)
    assert "".join(names) == "AB" * 3  # the first turn warms up
    assert len({*processes, str(os.getpid())}) == 3
    assert [len(samples.values) for samples in measured] == [2, 2]


def test_samples_are_compared_round_by_round():
    ratio = Samples((5.0, 15.0, 6.0)) / Samples((1.0, 5.0, 2.0))
    assert (ratio.values, str(ratio)) == ((5, 3, 3), "3 (3–5)")
    assert (1 / Samples((4.0, 2.0))).values == (0.25, 0.5)
    assert str(Samples((1234.5, 0.01234, 2345.6))) == "1,234 (0.0123–2,346)"


def test_the_table_tells_which_targets_are_missed():
    head, lines, *_ = to_markdown("two cores", [FAST, SLOW]).split("\n\n")
    assert head == "two cores."
    assert lines.splitlines() == [
        "| what | the usual tutorial | this program | ratio | target | met |",
        "| --- | --- | --- | --- | --- | --- |",
        "| the run | 1 m/s | 4 (3–5) m/s | 4 (3–5) | ≥ 4 times | yes |",
        "| the crawl | 1 s | 2 s, uphill | 0.5 | ≤ 1.5 s | no |",
    ]
    assert '"met": false' in to_json("two cores", [SLOW])


@pytest.mark.parametrize(
    "target, is_met",
    [({"at_most": 4}, True), ({"at_least": 4}, True), ({"at_most": 3.9}, False), ({}, None)],
)
def test_the_median_decides_about_a_target(target, is_met):
    assert Row("the run", Samples((3.0, 9.0, 4.0)), **target).is_met is is_met


def test_the_command_answers_the_named_questions_and_fails_on_a_missed_target_if_strict(
    monkeypatch, capsys
):
    asked = []

    def ask(options):
        asked.append(options.rounds)
        return [SLOW]

    monkeypatch.setitem(command.QUESTIONS, "search", (ask, "how slow"))
    assert command.main(["search", "--rounds", "5"]) == 0
    assert command.main(["search", "--strict", "--json"]) == 1
    assert asked == [5, 3]
    with pytest.raises(SystemExit):
        command.main(["flying"])
    assert "Expected one of cold_start, features" in capsys.readouterr().err


def test_a_program_is_timed_and_its_memory_measured(tmp_path):
    code = "import time; block = b'x' * 100_000_000; time.sleep(0.2); print('done')"
    run = run_program([sys.executable, "-c", code], tmp_path)
    assert run.output == "done\n"
    assert 0.2 <= run.seconds < 30
    assert run.peak_mb > 95
    with pytest.raises(ChildProcessError, match="no such luck"):
        run_program([sys.executable, "-c", "raise ValueError('no such luck')"], tmp_path)


def test_the_process_that_measures_imports_nothing_heavy():
    code = "import sys, benchmarks.__main__; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    assert "benchmarks.growth" in output.split()
    assert not {"keras", "tensorflow", "openvino", "PIL"} & set(output.split())


def test_growth_compares_the_largest_folder_with_a_thousand_images():
    costs = [Cost(100, 9.0, 50), Cost(1000, 2.0, 50), Cost(10_000, 3.0, 60)]
    *_, time, memory = growth.make_rows({"reading": costs})
    assert time.name == "reading: time per image, 10,000 images against 1,000"
    assert (time.program.median, time.is_met) == (1.5, False)
    assert (memory.program.median, memory.is_met) == (1.2, True)


def test_the_curve_of_growth_is_drawn(tmp_path):
    growth.draw({"reading": [Cost(100, 9.0, 50), Cost(1000, 2.0, 50)]}, tmp_path / "growth.svg")
    assert (tmp_path / "growth.svg").read_text("utf-8").count("</svg>") == 1


def test_the_machine_is_named(monkeypatch):
    cpuinfo = {"model name": "Abacus 9000", "flags": "fpu avx2 avx512f"}
    monkeypatch.setattr(machine, "_cpuinfo", cpuinfo.get)
    assert "cores of Abacus 9000 (avx2, avx512f), " in machine.name()


def test_the_generated_data_has_the_shape_of_flickr8k(tmp_path):
    from PIL import Image

    data = training_set(VOCABULARY_SIZES[1], images=300)
    lengths = [len(ids) - 2 for captions in data.captions.values() for ids in captions]
    assert len(lengths) == 1500
    assert sum(lengths) / 1500 == pytest.approx(10.8, abs=0.4)
    assert len(data.vocabulary) == 7375
    assert data.features["00007.jpg"].shape == (2048,)
    assert [Image.open(path).size for path in photographs(tmp_path, 2)] == [(500, 375)] * 2
    with pytest.raises(FileNotFoundError, match="Expected 3 JPEG files in .*, got 2"):
        photographs(tmp_path, 3, source=tmp_path)


@pytest.mark.slow
def test_the_tutorial_expands_a_caption_into_prefixes_and_one_hot_targets():
    from benchmarks import tutorial

    prefixes, targets = tutorial.expand([1, 5, 4, 2], vocabulary_size=6, max_length=4)
    assert prefixes.tolist() == [[0, 0, 0, 1], [0, 0, 1, 5], [0, 1, 5, 4]]
    assert targets.argmax(-1).tolist() == [5, 4, 2]
    assert targets.sum(-1).tolist() == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("side", ["tutorial", "program"])
def test_each_side_does_all_of_its_work(side, tmp_path):
    from benchmarks import program, tutorial

    paths = photographs(tmp_path, 2)
    if side == "tutorial":
        works = [tutorial.extract(paths, 2), tutorial.caption(paths), tutorial.search(2)]
        works.append(tutorial.train(VOCABULARY_SIZES[5], images=2))
    else:
        program.export_untrained_decoder(tmp_path)
        works = [program.extract(paths), program.encode(paths), program.caption(paths)]
        works += [program.search_shipped(paths), program.search(tmp_path, 2, beam_width=3)]
        works.append(program.train(VOCABULARY_SIZES[5], images=2))
    assert [work() for work in works] == [2] * len(works)


@pytest.mark.slow
def test_growth_is_measured_with_a_tiny_model(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "_PHOTOGRAPHS", 2)
    growth.prepare(tmp_path)
    curves = growth.measure_growth(tmp_path, [3])
    assert {way: cost.images for way, (cost,) in curves.items()} == {
        "captioning": 3,
        "resuming a finished run": 3,
        "extracting features": 3,
    }
    assert len(Path(tmp_path, "all_of_3.csv").read_text("utf-8").splitlines()) == 4
