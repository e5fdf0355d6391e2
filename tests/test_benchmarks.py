import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import count
from multiprocessing import active_children
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from benchmarks import cold_start, growth, machine, many_images, runtimes, tutorial, tutorial_work
from benchmarks import features as features_benchmark
from benchmarks import search as search_benchmark
from benchmarks import training as training_benchmark
from benchmarks.__main__ import main
from benchmarks.findings import Finding, Target, to_json, to_markdown
from benchmarks.fresh import Ran, in_fresh_process, run_fresh, worker_process
from benchmarks.growth import Cost
from benchmarks.plan import Plan
from benchmarks.questions import QUESTIONS, ask
from benchmarks.timing import Spread, seconds_a_piece
from benchmarks.world import WORDS, World, made_world, photographs
from captioning.data.vocabulary import END, START, Vocabulary
from captioning.export.keras_to_openvino import to_decoder
from captioning.inference.captioner import Captioner
from captioning.models.caption_model import build_caption_model
from captioning.paths import Paths
from captioning.settings import SearchSettings, TrainingSettings

FAST = Finding("the run", Spread((3.0, 5.0, 4.0)), "times", Target(4), "a walk", "a run")
SLOW = replace(FAST, what="the crawl", measured=Spread((0.5,)))


class FakeClock:
    """It goes on as the works tell it to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, name, log, *seconds, pieces=1):
        seconds = iter(seconds)

        def work():
            self.now += next(seconds)
            log.append(name)
            return pieces

        return work


def taking(*seconds):
    """`seconds_a_piece`, of one round, by a clock on which the works take so many seconds."""
    return partial(
        seconds_a_piece, clock=iter([tick for one in seconds for tick in (0.0, one)]).__next__
    )


def test_works_are_measured_in_turn_and_compared_round_by_round():
    clock, log = FakeClock(), []
    theirs, product = seconds_a_piece(
        clock.work("A", log, 10, 30, 12, pieces=2),
        clock.work("B", log, 1, 5, 2),
        rounds=3,
        clock=clock,
    )
    assert log == ["A", "B"] * 3
    assert theirs.values == (5, 15, 6)
    assert theirs.over(product).values == (5, 3, 3)
    assert str(theirs.over(product)) == "3 (3–5)"


def test_large_numbers_are_written_out():
    assert str(Spread((1234.5, 0.01234, 2345.6))) == "1,234 (0.0123–2,346)"


def test_the_median_counts():
    assert FAST.measured.median == 4
    assert FAST.verdict == "yes"
    assert replace(FAST, measured=Spread((3.0, 3.9, 9.0))).verdict == "no"


def test_a_limit_is_not_to_be_passed():
    limit = Target(600, is_limit=True)
    assert (str(Target(60)), str(limit)) == ("≥ 60", "≤ 600")
    assert limit.holds(Spread((600.0,))) and not limit.holds(Spread((601.0,)))


def test_the_table_says_what_was_missed():
    *lines, _, legend, _ = to_markdown("two cores", [FAST, SLOW]).split("\n")
    assert legend.startswith("Measured: the median of the rounds")
    assert lines == [
        "# How fast",
        "",
        "two cores.",
        "",
        "| what | the usual tutorial | this program | measured | target | holds |",
        "| --- | --- | --- | --- | --- | --- |",
        "| the run | a walk | a run | 4 (3–5) times | ≥ 4 | yes |",
        "| the crawl | a walk | a run | 0.5 times | ≥ 4 | no |",
    ]
    assert '"holds": false' in to_json("two cores", [SLOW])


def test_the_command_asks_what_is_named_and_fails_if_strict_where_a_target_is_missed(
    tmp_path, capsys
):
    asked = []

    def measure(name, plan):
        asked.append((name, plan.rounds))
        return [SLOW if name == "search" else FAST]

    assert main(["training", "--rounds", "5"], measure) == 0
    assert main(["search", "--output", str(tmp_path / "speed.md")], measure) == 0
    assert main(["training", "--strict"], measure) == 0
    assert (
        main(["training", "search", "--strict", "--output", str(tmp_path / "speed.md")], measure)
        == 1
    )
    assert asked == [("training", 5), ("search", 3)] + [("training", 3)] * 2 + [("search", 3)]
    assert (tmp_path / "speed.md").read_text("utf-8") in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["flying"], measure)
    assert "wanted one of cold_start, features" in capsys.readouterr().err


def test_by_default_everything_is_asked_but_for_the_runtimes(capsys):
    asked = []
    main([], lambda name, plan: asked.append(name) or [FAST])
    assert asked == [
        "cold_start", "features", "training", "many_images", "search", "growth", "machine",
    ]  # fmt: skip


def test_a_caption_is_expanded_into_prefixes_and_one_hot_targets():
    prefixes, targets = tutorial.expand([START, 5, 4, END], max_length=4, vocabulary_size=6)
    assert prefixes.tolist() == [
        [0, 0, 0, START],
        [0, 0, START, 5],
        [0, START, 5, 4],
    ]
    assert targets.tolist() == [
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 0],
    ]


def test_the_tutorial_trains_on_one_image_a_step():
    batches = tutorial.batches(
        {"a.jpg": [[START, 4, END], [START, END]], "b.jpg": [[START, END]]},
        {"a.jpg": np.array([1.0, 2.0]), "b.jpg": np.array([3.0, 4.0])},
        max_length=3,
        vocabulary_size=5,
    )
    (features, prefixes), targets = next(batches)
    assert features.tolist() == [[1, 2]] * 3
    assert (prefixes.shape, targets.shape) == ((3, 3), (3, 5))
    (features, _), _ = next(batches)
    assert features.tolist() == [[3, 4]]
    assert next(batches)[0][0].tolist() == [[1, 2]] * 3


@pytest.fixture(scope="module")
def caption_model():
    """With random weights, that say different things of different images, and end one of four."""
    keras.utils.set_random_seed(5)
    settings = TrainingSettings(decoder="merge", units=16, embedding_units=16)
    model = build_caption_model(20, 6, settings)
    model.set_weights([3 * weight for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def features():
    maps = np.random.default_rng(0).standard_normal((4, 1, 6)).astype("float32")
    return dict(enumerate(maps[:, 0]))


VOCABULARY = Vocabulary(f"word{number}" for number in range(16))


def test_both_sides_say_the_same_with_the_same_weights(caption_model, features):
    by_tutorial = tutorial.with_weights_of(caption_model, max_length=9)
    decoder = to_decoder(caption_model, VOCABULARY, longest_caption=6)
    maps = np.stack(list(features.values()))[:, None]
    ours = [found[0].ids for found in decoder.search(maps, SearchSettings(beam_width=1))]
    theirs = [tuple(tutorial.say(by_tutorial, of, 9, longest=6)) for of in maps[:, 0]]
    assert ours == theirs
    assert len(set(ours)) == 4
    assert [len(ids) for ids in ours] == [6, 6, 6, 0]


def test_the_search_is_compared(caption_model, features, monkeypatch):
    monkeypatch.setattr(search_benchmark, "seconds_a_piece", taking(8, 0.5, 2))
    greedy, beam = search_benchmark.measure(caption_model, VOCABULARY, features, 2, rounds=1)
    assert greedy.what == "the search, beam 1, 4 images at once"
    assert greedy.tutorial == "0.25 captions/s, greedy"
    assert greedy.product == "8 captions/s, 2 of 2 the tutorial's own"
    assert (greedy.measured.values, greedy.verdict) == ((32,), "yes")
    assert (beam.measured.values, beam.verdict) == ((8,), "no")


def test_an_epoch_is_compared_and_whole_training_computed(monkeypatch):
    random = np.random.default_rng(0)
    captions = {f"{n}.jpg": [[START, *[4] * (2 + n % 3), END]] * 2 for n in range(80)}
    features = {name: random.random(6, dtype="float32") for name in captions}
    world = World(VOCABULARY, captions, features)
    theirs = tutorial_work.build_training(world, images=3)
    ours = training_benchmark.build_epoch(world)
    monkeypatch.setattr(training_benchmark, "seconds_a_piece", taking(6, 1.25))
    epoch, whole = training_benchmark.measure(world, theirs, 3, ours, rounds=1)
    assert epoch.what == "an epoch of the merge model, 80 images, 20 ids"
    assert epoch.measured.median == pytest.approx(128)
    assert (epoch.target, epoch.verdict) == (Target(60), "yes")
    assert epoch.tutorial == "2.67 minutes, scaled from 3 images a round"
    assert epoch.product == "1.25 s"
    assert (str(whole.measured), whole.unit, whole.verdict) == ("0.208", "minutes", "")
    assert whole.tutorial == "0.444 hours, computed: as many epochs"
    assert whole.product.startswith("computed: 10 epochs")


def test_the_made_world_has_the_shape_of_flickr8k():
    world = made_world(images=300)
    lengths = [len(ids) - 2 for of_image in world.captions.values() for ids in of_image]
    assert len(lengths) == 1500
    assert np.mean(lengths) == pytest.approx(10.8, abs=0.4)
    assert min(lengths) >= 2 and max(lengths) <= 37
    assert len(world.vocabulary) == 4 + WORDS[1] == 7375
    assert world.features["00007.jpg"].shape == (2048,)
    assert made_world(images=300).captions == world.captions


def test_made_photographs_are_of_the_usual_size_and_differ(tmp_path):
    paths = photographs(tmp_path, 3)
    pixels = [np.asarray(Image.open(path)) for path in paths]
    assert [each.shape for each in pixels] == [(375, 500, 3)] * 3
    assert np.abs(pixels[0].astype(int) - pixels[2]).mean() > 5


def test_too_few_real_photographs_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="Wanted: 3 images"):
        photographs(tmp_path, 3, root=tmp_path)


def test_a_fresh_process_is_timed_and_weighed(tmp_path):
    code = "import time; block = b'x' * 100_000_000; time.sleep(0.2); print('done')"
    ran = run_fresh([sys.executable, "-c", code], tmp_path)
    assert ran.output == "done\n"
    assert 0.2 <= ran.seconds < 30
    assert ran.peak_mb > 95
    with pytest.raises(ChildProcessError, match="no such luck"):
        run_fresh([sys.executable, "-c", "raise ValueError('no such luck')"], tmp_path)


def test_a_function_runs_in_a_process_of_its_own():
    assert in_fresh_process(sum, [1, 2]) == 3


def test_work_goes_on_in_a_process_of_its_own():
    with worker_process(getattr, count(), "__next__") as work:
        assert (work(), work()) == (0, 1)
    with worker_process(partial, os.getpid) as work:
        assert work() != os.getpid()
        assert len(active_children()) == 1
    assert not active_children()


def test_what_fails_in_a_process_of_its_own_ends_it():
    with pytest.raises(ZeroDivisionError), worker_process(divmod, 1, 0):
        pass
    assert not active_children()
    with pytest.raises(ZeroDivisionError), worker_process(partial, divmod, 1, 0) as work:
        work()
    assert not active_children()


def test_to_caption_neither_tensorflow_nor_keras_is_imported():
    assert cold_start.heavy_modules() == 0


def imported_with(*modules):
    """All that a process holds which imported these."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=Paths().root, capture_output=True, text=True, check=True
    ).stdout.split()


def test_what_measures_memory_imports_nothing_heavy():
    modules = imported_with("benchmarks.__main__", "benchmarks.growth", "benchmarks.cold_start")
    assert "benchmarks.growth" in modules
    assert not {"keras", "tensorflow", "openvino", "PIL"} & set(modules)


def test_captioning_is_timed_without_tensorflow_beside_it(monkeypatch, tmp_path):
    modules = imported_with("benchmarks.many_images")
    assert "openvino" in modules
    assert not {"keras", "tensorflow"} & set(modules)
    sides = put_in_processes(monkeypatch, many_images)
    monkeypatch.setattr(many_images, "_IMAGES", 4)
    monkeypatch.setattr(many_images, "Captioner", SimpleNamespace(load=lambda: "our captioner"))
    captioner, paths, theirs, rounds = many_images.run(Plan(rounds=7))
    assert (captioner, len(paths), rounds) == ("our captioner", 4, 7)
    assert sides == {theirs: (tutorial_work.build_captioning, paths[:3])}


def test_both_sides_of_training_learn_from_one_world_each_in_a_process_of_its_own(monkeypatch):
    often = TrainingSettings.min_word_count
    worlds = {often: "words seen often", 1: "all words"}
    sides = put_in_processes(monkeypatch, training_benchmark)
    monkeypatch.setattr(
        training_benchmark, "made_world", lambda min_word_count: worlds[min_word_count]
    )
    found = training_benchmark.run(Plan(rounds=7))
    assert found[0::5] == list(worlds.values())
    for world, theirs, images, ours, rounds in (found[:5], found[5:]):
        assert sides[theirs] == (tutorial_work.build_training, world, images)
        assert sides[ours] == (training_benchmark.build_epoch, world)
        assert rounds == 7


def test_each_side_of_extraction_has_a_process_of_its_own(monkeypatch):
    modules = imported_with("benchmarks.features")
    assert "openvino" in modules
    assert not {"keras", "tensorflow"} & set(modules)
    sides = put_in_processes(monkeypatch, features_benchmark)
    monkeypatch.setattr(features_benchmark, "_IMAGES", 40)
    paths, _, one_by_one, in_batches, rounds = features_benchmark.run(Plan(rounds=7))
    assert (len(paths), rounds) == (40, 7)
    assert sides == {
        one_by_one: (tutorial_work.build_encoding, paths[:8], 1),
        in_batches: (tutorial_work.build_encoding, paths[:32], 32),
    }


def put_in_processes(monkeypatch, benchmark):
    """Has a benchmark find what it measures with; returns what it puts in processes of their own,
    by the names of those."""
    sides = {}

    @contextmanager
    def worker_process(*build):
        name = f"process {len(sides)}"
        sides[name] = build
        yield name

    monkeypatch.setattr(benchmark, "worker_process", worker_process)
    monkeypatch.setattr(benchmark, "measure", lambda *measured: list(measured))
    return sides


def test_growth_compares_the_most_images_with_a_thousand():
    costs = [Cost(100, 9.0, 50), Cost(1000, 2.0, 50), Cost(10_000, 3.0, 60)]
    rows = {one.what: one for one in growth.findings({"reading": costs})}
    time = rows["reading: cost of an image, 10,000 images beside 1,000"]
    nothing = growth.findings({"going on": [Cost(1000, 0.0, 50), Cost(10_000, 0.02, 50)]})
    assert [one.verdict for one in nothing] == ["", "", "yes", "yes"]
    memory = rows["reading: memory, 10,000 images beside 1,000"]
    assert (time.measured.median, time.verdict) == (1.5, "no")
    assert (memory.measured.median, memory.verdict) == (1.2, "yes")
    assert rows["reading: 100 images"].verdict == ""


def test_the_curve_of_growth_is_drawn(tmp_path):
    costs = [Cost(100, 9.0, 50), Cost(1000, 2.0, 50)]
    growth.draw({"reading": costs, "writing": costs}, tmp_path / "docs" / "growth.svg")
    drawing = (tmp_path / "docs" / "growth.svg").read_text("utf-8")
    assert drawing.count("</svg>") == 1
    assert len(drawing) < 100_000


def test_the_machine_is_named(monkeypatch):
    told = {"model name": "Abacus 9000", "flags": "fpu avx2 avx512f"}
    monkeypatch.setattr(machine, "_cpuinfo", told.get)
    monkeypatch.setattr(machine, "cores", lambda: 3)
    assert machine.name().startswith("3 cores of Abacus 9000 (avx2, avx512f), ")


def test_without_the_means_to_measure_memory_a_line_says_so(monkeypatch, capsys):
    monkeypatch.delattr(os, "wait4")
    assert main(["training"], lambda name, plan: [FAST]) == 2
    output, complaint = capsys.readouterr()
    assert (output, complaint.count("\n")) == ("", 1)
    assert "Linux and macOS" in complaint


def test_every_question_has_a_module_that_answers_it(monkeypatch):
    plan = Plan(rounds=1)
    for name in QUESTIONS:
        monkeypatch.setattr(import_module(f"benchmarks.{name}"), "run", lambda plan: [FAST, plan])
        assert ask(name, plan) == [FAST, plan]


@pytest.fixture
def small_keras_encoder(monkeypatch):
    """In the place of the tutorial's Xception, what is as wide and costs nothing."""

    def build_encoder():
        return keras.Sequential(
            [
                keras.Input(tutorial.IMAGE_SHAPE),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(2048),
            ]
        )

    monkeypatch.setattr(tutorial, "build_encoder", build_encoder)


@pytest.mark.parametrize(
    "has_units, target, verdict", [(True, Target(5), "no"), (False, Target(1.5), "yes")]
)
def test_features_are_extracted_on_both_sides(
    has_units, target, verdict, tmp_path, monkeypatch, tiny_root, small_keras_encoder
):
    monkeypatch.setattr(features_benchmark, "has_bfloat16_units", lambda: has_units)
    monkeypatch.setattr(features_benchmark, "Paths", lambda: Paths(tiny_root))
    monkeypatch.setattr(features_benchmark, "seconds_a_piece", taking(8, 2, 1))
    paths = photographs(tmp_path, 4)
    theirs = [tutorial_work.build_encoding(paths, batch_size) for batch_size in (1, 3)]
    assert [work() for work in theirs] == [4, 4]
    single, batched = features_benchmark.measure(paths, tmp_path, *theirs, rounds=1)
    assert (single.measured.values, single.verdict) == ((8,), "")
    assert (single.tutorial, single.product) == ("0.5 images/s", "4 images/s")
    assert (batched.measured.values, batched.target, batched.verdict) == ((2,), target, verdict)


def test_many_images_are_captioned_on_both_sides(
    tmp_path, monkeypatch, tiny_root, small_keras_encoder
):
    monkeypatch.setattr(many_images, "seconds_a_piece", taking(4, 1, 0.5, 0.125))
    paths = photographs(tmp_path, 4)
    theirs = tutorial_work.build_captioning(paths[:1])
    rate, ratio, search = many_images.measure(Captioner.load(tiny_root), paths, theirs, rounds=1)
    assert (rate.measured.values, rate.verdict, rate.tutorial) == ((4,), "no", "0.25 images/s")
    assert ratio.measured.values == (16,)
    assert search.what == "the search, 64 images at once, beside the encoder"
    assert (search.measured.values, search.unit) == ((25,), "% of the encoder's time")
    assert search.product == "31.2 ms an image, the encoder 125 ms"


def test_the_encoder_is_held_against_matrix_products(tmp_path, monkeypatch, tiny_root):
    captioner = Captioner.load(tiny_root)
    monkeypatch.setattr(machine, "Captioner", SimpleNamespace(load=lambda: captioner))
    monkeypatch.setattr(machine, "has_bfloat16_units", lambda: False)
    eight_images = 8 * 8**3 / 8.4e9 / 8  # seconds: as many multiply-adds as eight images a second
    monkeypatch.setattr(machine, "seconds_a_piece", taking(2, eight_images, eight_images / 2))
    whole, eighths = machine.measure(photographs(tmp_path, 4), rounds=1, size=8)
    assert whole.what == "the encoder's share of what matrix products in float32 reach"
    assert (str(whole.measured), whole.tutorial) == ("25", "")
    assert whole.product == (
        "2 images/s; the products, 67.2 billion multiply-adds a second, would be enough for 8"
    )
    assert (str(eighths.measured), "in int8" in eighths.what) == ("12.5", True)


def test_runtimes_are_compared_with_tensorflow(monkeypatch):
    rates = {"TensorFlow, float32": "2.0", "OpenVINO, float32": "8.0"}
    monkeypatch.setattr(
        runtimes, "run_fresh", lambda command, folder: Ran(f"...\n{rates[command[3]]}\n", 9, 9)
    )
    first, second = runtimes.measure(list(rates), None, rounds=2)
    assert (first.measured.values, second.measured.values) == ((1, 1), (4, 4))
    assert (second.what, second.product) == ("the encoder in OpenVINO, float32", "8 images/s")


def test_openvino_runs_the_exported_encoder(tiny_root):
    encode = runtimes._CANDIDATES["OpenVINO, float32"](Paths(tiny_root).models)
    (maps,) = encode(np.zeros((2, 32, 48, 3), "uint8")).values()
    assert maps.shape == (2, 4, 18)


def test_a_cold_start_is_timed_and_weighed_after_the_first(monkeypatch, tmp_path):
    cold = iter([(90, 9000), (70, 7000), (10, 1500), (2, 300), (12, 1500), (1, 700)])
    monkeypatch.setattr(
        cold_start, "run_fresh", lambda command, folder: Ran("a dog\n", *next(cold))
    )
    monkeypatch.setattr(cold_start, "heavy_modules", lambda: 0)
    seconds, ratio, memory, modules = cold_start.measure(tmp_path, rounds=2)
    assert (seconds.measured.values, seconds.verdict) == ((2, 1), "no")
    assert ratio.measured.values == (5, 12)
    assert (memory.measured.values, memory.verdict) == ((300, 700), "yes")
    assert memory.tutorial == "1,500 MB"
    assert modules.verdict == "yes"


def test_the_tutorial_captions_with_the_weights_written_for_it(
    tmp_path, capsys, small_keras_encoder
):
    (image,) = photographs(tmp_path, 1)
    cold_start._prepare(tmp_path)
    tutorial.main(image, tmp_path)
    assert len(capsys.readouterr().out.split()) == tutorial.WORDS_A_CAPTION


def test_growth_is_measured_in_processes_of_their_own(tmp_path, monkeypatch):
    """Each takes a second, and another for each of its images, by the clock of this test."""
    results, ran = tmp_path / "results.csv", []

    def run(command, folder):
        images = 1 if str(tmp_path / "one") in str(command) else 2
        lines = len(results.read_text("utf-8").splitlines()) if results.exists() else 0
        ran.append(("extract" if "-c" in command else "caption", images, lines))
        return replace(run_fresh(command, folder), seconds=1 + images)

    monkeypatch.setattr(growth, "run_fresh", run)
    monkeypatch.setattr(growth, "_PHOTOGRAPHS", 2)
    monkeypatch.setattr(growth, "_MOST_FOR_REAL", 1)
    growth._prepare(tmp_path, root=None)
    curves = growth.measure(tmp_path, [2])
    assert {way: [cost.ms_an_image for cost in costs] for way, costs in curves.items()} == {
        "captioning, a tiny encoder": [500],
        "going on with a finished file": [500],
        "extracting feature maps, a tiny encoder": [500],
        "captioning, Xception": [],
    }
    anew = [("caption", 1, 0), ("caption", 2, 0)]
    prepared = [("caption", 1, 0), ("caption", 1, 2), ("caption", 2, 0), ("caption", 2, 3)]
    assert ran[:6] == anew + prepared
    assert [work for work, *_ in ran[6:]] == ["extract"] * 2
