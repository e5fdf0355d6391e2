"""The command `caption`, in a process of its own where that matters."""

import ast
import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from captioning.app import caption_command
from captioning.files import only_writer
from captioning.inference.captioner import Captioner
from captioning.inference.confidence import Confidence
from captioning.output.caption_formats import FORMATS
from captioning.paths import Paths
from captioning.settings import SearchSettings

ROOT = Path(__file__).parents[2]
IN_ORDER = ["photos/1.jpg", "photos/2.jpg", "photos/10.jpg", "photos/sub/a.jpg"]


COMMAND = [sys.executable, str(ROOT / "Testing_caption_generator.py")]


def run(*arguments, **environment):
    """Runs the command in its own process."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.fixture
def caption(tiny_root, capsys):
    """Runs the command in this process. Returns its status, the lines on stdout, and the lines on
    stderr."""

    def caption(*arguments):
        arguments = [*map(str, arguments), "--model", str(tiny_root)]
        status = caption_command.main(arguments)
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err.splitlines()

    return caption


@pytest.fixture
def confidences(monkeypatch):
    """Sets the confidences of the captions, one an image, in their order."""

    def set_confidences(*values):
        remaining = iter(values)
        monkeypatch.setattr(Confidence, "__call__", lambda *_: next(remaining))

    return set_confidences


@pytest.fixture
def folder(image_paths, tmp_path, monkeypatch):
    """The current folder, with photos/1.jpg, photos/2.jpg, photos/10.jpg and photos/sub/a.jpg."""
    monkeypatch.chdir(tmp_path)
    Path("photos/sub").mkdir(parents=True)
    for image_path, name in zip(image_paths, IN_ORDER, strict=False):
        shutil.copy(image_path, name)
    return tmp_path


@pytest.fixture(scope="module")
def image_paths(tiny_root):
    return sorted(Paths(tiny_root).images.glob("*.jpg"))


def test_for_one_image_the_command_prints_nothing_but_its_caption(tiny_root, image_paths):
    done = run("-i", image_paths[0], "--model", tiny_root)
    assert (done.returncode, done.stderr) == (0, "")
    (caption,) = done.stdout.splitlines()
    assert caption == Captioner.load(tiny_root).caption(image_paths[0]).text


def test_for_several_images_the_command_prints_a_line_each_in_order(tiny_root, image_paths):
    done = run("-i", *image_paths[2::-1], "--model", tiny_root)
    assert done.returncode == 0
    paths = [line.split(": ")[0] for line in done.stdout.splitlines()]
    assert paths == [str(path) for path in image_paths[2::-1]]


def test_greedy_search_is_a_beam_of_one(tiny_root, image_paths, caption):
    _, greedy, _ = caption("-i", *image_paths, "--beam-width", 1)
    _, beam_of_three, _ = caption("-i", *image_paths)
    captions = Captioner.load(tiny_root).caption_batch(image_paths, search=SearchSettings(1))
    assert greedy == [
        f"{path}: {best}" for path, (best, *_) in zip(image_paths, captions, strict=True)
    ]
    assert greedy != beam_of_three


def test_images_may_be_named_with_or_without_the_option(caption, image_paths):
    first, second = image_paths[:2]
    expected = caption("-i", first, second)
    assert [line.split(": ")[0] for line in expected[1]] == [str(first), str(second)]
    assert caption("-i", first, "-i", second) == expected
    assert caption(first, second) == expected
    assert caption(first, "-i", second) == expected
    assert caption(first, "--beam-width", 12, second) == expected
    assert caption("--image", first, "--beam-width", 12, second)[1][::-1] == expected[1]


def test_an_environment_variable_may_name_the_model(tiny_root, image_paths, tmp_path):
    done = run(image_paths[0], CAPTIONING_MODEL=str(tiny_root))
    assert done.stdout.strip() == Captioner.load(tiny_root).caption(image_paths[0]).text
    done = run(image_paths[0], "--model", tiny_root, CAPTIONING_MODEL=str(tmp_path))
    assert done.returncode == 0
    done = run(image_paths[0], CAPTIONING_MODEL=str(tmp_path))
    assert done.returncode == 2 and "tokenizer.p" in done.stderr


@pytest.mark.parametrize("name", ["captions.json", "captions.xml", "captions.TXT.gz"])
def test_the_error_of_an_unknown_ending_names_the_known_ones(name, caption, image_paths, folder):
    status, _, (line,) = caption("-i", image_paths[0], "--output", name)
    assert status == 2
    assert f"ends in .txt, .jsonl or .csv, got {name}" in line
    assert not Path(name).exists()
    assert caption("-i", image_paths[0], "--output", name, "--format", "jsonl")[0] == 0
    assert json.loads(Path(name).read_text(encoding="utf-8"))["caption"]


def test_only_without_no_cache_are_compiled_networks_kept(
    caption, image_paths, tmp_path, monkeypatch
):
    monkeypatch.setenv("CAPTIONING_CACHE", str(tmp_path / "cache"))
    printed = caption(image_paths[0], "--no-cache")
    assert not (tmp_path / "cache").exists()
    assert caption(image_paths[0]) == printed
    assert len([*(tmp_path / "cache").iterdir()]) == 3


def test_a_dash_as_output_is_standard_output(caption, folder):
    expected = caption("photos")
    assert caption("photos", "--output", "-") == expected
    assert caption("photos", "--output", "-", "--gallery", "a.html") == expected
    assert not Path("-").exists()
    assert caption("photos", "--output", "-", "--format", "csv")[1][0] == (
        "image,caption,log_prob,confidence"
    )


def test_the_formats_to_choose_from_are_those_that_can_be_written():
    assert set(caption_command.FORMAT_NAMES) == set(FORMATS)


def test_a_missing_file_is_one_line_on_stderr_and_status_2(tiny_root, tmp_path):
    done = run("-i", tmp_path / "gone.jpg", "--model", tiny_root)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "gone.jpg" in line


def test_a_broken_file_among_others_stops_nothing_and_sets_status_1(
    tiny_root, image_paths, tmp_path
):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(image_paths[0].read_bytes()[:500])
    done = run("-i", broken, image_paths[0], "--model", tiny_root)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == len(done.stderr.splitlines()) == 1
    assert "broken.jpg" in done.stderr


def test_a_folder_without_a_model_is_one_line_on_stderr(tmp_path, image_paths):
    done = run("-i", image_paths[0], "--model", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "tokenizer.p" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected an image, a folder or a pattern, got none. Name one: caption photo.jpg"),
        (("-i", "a.jpg", "--beam-width", "0"), "expected a whole number from 1 to 100, got 0"),
        (
            ("-i", "a.jpg", "--beam-width", "wide"),
            "expected a whole number from 1 to 100",
        ),
        (("-i", "a.jpg", "--top", "0"), "expected a whole number from 1 to 100, got 0"),
        (("-i", "a.jpg", "--format", "xml"), "invalid choice: 'xml'"),
        (
            ("-i", "a.jpg", "--gallery", "a.jpg"),
            "expected a name that ends in .html or .htm, got a.jpg",
        ),
        (("-i", "a.jpg", "--attention", "a.gif"), "expected a name that ends in .png or .jpg"),
        (
            ("-i", "a.jpg", "--output", "a.html", "--gallery", "./a.html"),
            "Expected different files",
        ),
        (
            ("-i", "a.jpg", "b.jpg", "--attention", "a.png"),
            "Expected one image to draw with --attention, got 2",
        ),
        (("-i", "a.jpg", "--beam-width", "100000"), "expected a whole number from 1 to 100"),
        (("-i", "a.jpg", "--length-normalisation", "2"), "expected a number from 0 to 1"),
        (("-i", "a.jpg", "--length-normalisation", "long"), "expected a number from 0 to 1"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_captioning_imports_nothing_that_only_training_needs(tiny_root, image_paths):
    arguments = [str(image_paths[0]), "--model", str(tiny_root)]
    code = "import sys; from captioning.app.caption_command import main; "
    code += f"main({arguments}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    modules = set(done.stdout.splitlines()[1].split())
    packages = {module.partition(".")[0] for module in modules}
    assert packages.isdisjoint({"keras", "tensorflow", "matplotlib", "pycocoevalcap", "scipy"})
    assert "pyexiv2" not in packages  # only --describe needs it
    assert packages.isdisjoint({"tqdm", "absl"})  # for many images; for converting networks
    assert "captioning.output.attention_figure" not in modules  # only --attention needs it
    assert {"numpy", "openvino", "PIL"} <= packages


def test_the_help_needs_neither_numpy_nor_openvino():
    code = "import sys; from captioning.app.caption_command import main\n"
    code += "try: main(['--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    packages = {module.partition(".")[0] for module in done.stderr.split()}
    assert packages.isdisjoint({"numpy", "openvino", "PIL"})


@pytest.mark.parametrize("package", ["PIL", "openvino"])
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(package, tmp_path):
    code = f"import sys; sys.modules[{package!r}] = None; import Testing_caption_generator as it; "
    code += "sys.exit(it.main(['photo.jpg']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"Expected the package {package}, got none. In the folder of the clone, run: "
        'pip install "."'
    ]


@pytest.mark.parametrize(
    ("option", "package", "extra"),
    [
        (("--describe", "copies"), "pyexiv2", "metadata"),
        (("--attention", "a.png"), "matplotlib", "plots"),
        (("--gallery", "a.html"), "jinja2", "plots"),
    ],
)
def test_an_option_whose_package_is_missing_names_the_extra(
    option, package, extra, caption, folder, monkeypatch
):
    for module in [*sys.modules]:
        if module.startswith(("captioning.output", package)):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    status, lines, (problem,) = caption(IN_ORDER[0], *option)
    assert (status, lines) == (2, [])
    assert problem.endswith(f'pip install ".[{extra}]"')


def test_an_older_python_gets_one_line_that_names_the_version():
    for path in (ROOT / "Testing_caption_generator.py", ROOT / "captioning" / "__main__.py",
                 ROOT / "captioning" / "__init__.py"):  # fmt: skip
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    older = (
        "import runpy, sys; sys.version_info = (3, 10, 12, 'final', 0); sys.version = '3.10.12'; "
    )
    for run_it in ("run_module('captioning', run_name='__main__')",
                   "run_path('Testing_caption_generator.py', run_name='__main__')"):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", f"{older} runpy.{run_it}"],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "Expected Python 3.11 or later, got 3.10.12. Install a later one.\n"


def test_captions_go_to_any_object_that_replaces_standard_output(
    tiny_root, image_paths, monkeypatch
):
    expected = Captioner.load(tiny_root).caption(image_paths[0]).text
    arguments = [str(image_paths[0]), "--model", str(tiny_root)]
    with contextlib.redirect_stdout(io.StringIO()) as buffer:
        assert caption_command.main(arguments) == 0
    assert buffer.getvalue() == f"{expected}\n"
    with contextlib.redirect_stdout(io.StringIO()) as buffer:
        assert caption_command.main([*arguments, "--format", "jsonl"]) == 0
    assert json.loads(buffer.getvalue())["caption"] == expected


def test_without_standard_streams_captions_still_reach_their_file(
    tiny_root, image_paths, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    output = tmp_path / "captions.txt"
    arguments = [*map(str, image_paths[:2]), "gone.jpg", "--model", str(tiny_root)]
    assert caption_command.main([*arguments, "--output", str(output)]) == 1
    assert len(output.read_text().splitlines()) == 2
    assert caption_command.main(arguments) == 1


def test_warnings_of_the_host_program_stay_as_they_are(caption, image_paths):
    before = list(warnings.filters)
    caption(image_paths[0])
    assert warnings.filters == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line_on_stderr(tiny_root, image_paths):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *map(str, image_paths[:2]), "--model", str(tiny_root)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "No space left on device: 'standard output'" in line


def test_a_folder_is_captioned_in_reading_order(caption, folder):
    status, lines, problems = caption("-i", "photos")
    assert (status, problems) == (0, [])
    assert [line.split(": ")[0] for line in lines] == IN_ORDER


def test_the_single_image_of_a_folder_is_printed_with_its_name(caption, folder):
    assert caption("-i", "photos/sub")[1][0].startswith("photos/sub/a.jpg: ")


def test_a_pattern_names_the_images_that_match(caption, folder):
    assert caption("-i", "photos/**/*.jpg") == caption("-i", "photos")


def test_failures_stop_nothing_and_are_printed_at_the_end(caption, folder):
    Path("photos/2.jpg").write_text("no image")
    status, lines, problems = caption("-i", "nothing*", "photos", "gone.jpg")
    assert status == 1
    assert [line.split(": ")[0] for line in lines] == [n for n in IN_ORDER if "2" not in n]
    pattern_error, broken_error, missing_error = problems
    assert "nothing*" in pattern_error
    assert "2.jpg cannot be read" in broken_error
    assert "no file gone.jpg" in missing_error


@pytest.mark.skipif(sys.platform == "win32", reason="no such names there")
@pytest.mark.parametrize("output", [(), ("--format", "csv"), ("--format", "jsonl")])
def test_control_characters_in_names_are_printed_escaped(caption, folder, output):
    os.rename("photos/1.jpg", "photos/1\x1b[31m.jpg")
    Path("photos/2\x1b[2J\n.jpg").write_text("no image")
    status, lines, problems = caption("photos", "empty\x1b*", *output)
    assert status == 1
    assert r"photos/1\x1b[31m.jpg" in "".join(lines).replace(r"\\", "\\")
    assert "\x1b" not in "".join(lines + problems)
    pattern_problem, image_problem = problems
    assert r"empty\x1b*" in pattern_problem
    assert image_problem.startswith(r"photos/2\x1b[2J\n.jpg cannot be read")


def test_without_any_image_the_status_is_2(caption, folder):
    status, lines, problems = caption("-i", "nothing*", "gone.jpg", "--format", "text")
    assert (status, lines, len(problems)) == (2, [], 2)


def test_captions_below_the_least_confidence_are_left_out_and_listed(caption, folder, confidences):
    confidences(0.6, 0.59, 0.0, 0.9)
    status, lines, notes = caption("photos", "--min-confidence", 0.6)
    assert status == 0
    assert [line.partition(":")[0] for line in lines] == [IN_ORDER[0], IN_ORDER[3]]
    assert notes == [
        "Not sure: 2 images, left out for a confidence below 0.6:",
        f"  {IN_ORDER[1]}",
        f"  {IN_ORDER[2]}",
    ]


def test_the_status_is_0_also_if_every_caption_is_left_out(caption, folder, confidences):
    confidences(0.1)
    assert caption(IN_ORDER[0], "--min-confidence", 0.6) == (
        0,
        [],
        ["Not sure: 1 image, left out for a confidence below 0.6:", f"  {IN_ORDER[0]}"],
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
def test_a_caption_that_was_left_out_of_a_file_is_added_by_a_run_that_accepts_it(
    caption, folder, confidences, name
):
    expected = caption("photos", "--format", FORMATS[name[2:].replace("txt", "text")].name)[1]
    confidences(0.25, 0.75, 0.75, 0.75)
    assert caption("photos", "--output", name, "--min-confidence", 0.5)[0] == 0
    confidences(0.25)
    assert caption("photos", "--output", name)[0] == 0
    lines = Path(name).read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[:2] for line in lines] == [line.split(",")[:2] for line in expected]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
def test_a_resumed_run_marks_unsure_captions_as_the_run_before(caption, folder, confidences, name):
    run = ("photos", "--output", name, "--gallery", "a.html", "--describe", "copies")
    results = []
    for _ in range(2):
        confidences(0.49, 0.5, 0.9, 0.9)
        status, _, problems = caption(*run)
        results.append((status, problems, Path("a.html").read_text(encoding="utf-8")))
    assert results[1] == results[0]
    assert results[0][:2] == (0, [])  # the copies are the same, or there would be a problem
    assert results[0][2].count('alt="Not sure') == 1


def test_copies_and_gallery_mark_captions_that_are_more_often_wrong_than_not(
    caption, folder, confidences
):
    confidences(0.49, 0.5, 0.9, 0.9)
    _, lines, _ = caption("photos", "--gallery", "a.html", "--describe", "copies")
    captions = [line.partition(": ")[2] for line in lines]
    descriptions = []
    for name in IN_ORDER:
        with Image.open(Path("copies", *Path(name).parts[1:])) as copy:
            descriptions.append(copy.getexif()[ExifTags.Base.ImageDescription])
    assert descriptions == [f"Not sure: {captions[0]}", *captions[1:]]
    page = Path("a.html").read_text(encoding="utf-8")
    assert page.count(f'alt="Not sure: {captions[0]}"') == page.count('alt="Not sure') == 1


def test_a_least_confidence_needs_a_model_that_has_confidences(caption, folder, monkeypatch):
    monkeypatch.setattr("captioning.inference.decoder.load_confidence", lambda *_: None)
    status, lines, (problem,) = caption("photos", "--min-confidence", 0.6)
    assert (status, lines) == (2, [])
    assert problem.startswith("Expected a model with confidences for --min-confidence, got one")
    _, (line, *_), _ = caption("photos", "--format", "jsonl")
    assert json.loads(line)["confidence"] is None


def test_json_lines_hold_image_caption_and_log_probability(caption, folder, tiny_root):
    _, lines, _ = caption("-i", "photos", "--format", "jsonl")
    records = [json.loads(line) for line in lines]
    assert [record["image"] for record in records] == IN_ORDER
    expected = Captioner.load(tiny_root).caption(IN_ORDER[0])
    assert records[0]["caption"] == expected.text
    assert records[0]["log_prob"] == pytest.approx(expected.log_prob, abs=1e-3)
    assert records[0]["confidence"] == pytest.approx(expected.confidence, abs=1e-3)


def test_top_gives_the_best_captions_with_their_log_probabilities(caption, folder, tiny_root):
    (expected,) = Captioner.load(tiny_root).caption_batch(["photos/1.jpg"], num_captions=4)
    _, (line,), _ = caption("-i", "photos/1.jpg", "--top", 4, "--format", "jsonl")
    rows = json.loads(line)["captions"]
    texts = [best.text for best in expected]
    assert [row["caption"] for row in rows] == texts
    assert [row["log_prob"] for row in rows] == pytest.approx(
        [best.log_prob for best in expected], abs=1e-3
    )
    _, lines, _ = caption("-i", "photos/1.jpg", "--top", 4)
    assert [line.split(" (")[0] for line in lines] == texts


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_a_file_holds_the_lines_that_would_have_been_printed(caption, folder, name):
    _, lines, _ = caption("-i", "photos", "--format", name.split(".")[1].replace("txt", "text"))
    assert caption("-i", "photos", "--output", f"new/{name}") == (0, [], [])
    assert Path("new", name).read_text(encoding="utf-8").splitlines() == lines


def test_images_already_in_the_file_are_skipped(caption, folder, monkeypatch):
    caption("-i", "photos/sub", "photos/2.jpg", "--output", "captions.csv")
    with open("captions.csv", "a") as file:
        file.write("photos/10.jpg,a cir")  # as if the run had been killed here
    Path("photos/1.jpg").rename("away.jpg")
    assert caption("-i", *IN_ORDER, "--output", "captions.csv")[0] == 1
    Path("away.jpg").rename("photos/1.jpg")

    captioned = []
    stream = Captioner.stream

    def watched(self, paths, *rest):
        paths = list(paths)
        captioned.extend(paths)
        return stream(self, paths, *rest)

    monkeypatch.setattr(Captioner, "stream", watched)
    assert caption("-i", *IN_ORDER, "--output", "captions.csv") == (0, [], [])
    assert captioned == [str(Path("photos/1.jpg"))]
    with open("captions.csv", newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == IN_ORDER


@pytest.mark.parametrize(
    ("option", "name"),
    [("--output", "captions.jsonl"), ("--gallery", "page.html"), ("--attention", "figure.png")],
)
def test_a_second_run_that_writes_the_same_file_is_refused(caption, folder, option, name):
    with only_writer(folder / name):
        status, lines, errors = caption("photos/1.jpg", option, name)
    assert (status, lines) == (2, [])
    (error,) = errors
    assert error.startswith(f"Expected one run at a time that writes {folder / name}, got a second")
    assert caption("photos/1.jpg", option, name)[0] == 0
    assert {path.name for path in folder.iterdir()} == {"photos", name}


def test_a_file_of_another_kind_is_refused_in_one_line(caption, folder):
    caption("-i", "photos", "--output", "captions.csv")
    content = Path("captions.csv").read_bytes()
    for options in (["--format", "jsonl"], ["--top", 2]):
        status, lines, (problem,) = caption("-i", "photos", "--output", "captions.csv", *options)
        assert (status, lines) == (2, [])
        assert "got captions.csv, which holds" in problem
    assert Path("captions.csv").read_bytes() == content


def test_copies_hold_the_captions_and_are_not_captioned_themselves(caption, folder, confidences):
    confidences(*[0.9] * 8)
    command = ("-i", "photos", "--describe", "photos/described")
    status, lines, problems = caption(*command)
    assert (status, problems) == (0, [])
    for line in lines:
        name, text = line.split(": ")
        with Image.open(Path("photos/described", *Path(name).parts[1:])) as copy:
            assert copy.getexif()[0x010E] == text
    assert caption(*command) == (0, lines, [])


def test_an_image_whose_copy_cannot_be_written_is_still_captioned(caption, folder):
    Image.open("photos/1.jpg").save("photos/1.bmp")
    status, lines, (problem,) = caption("-i", "photos/1.bmp", IN_ORDER[1], "--describe", "copies")
    assert (status, len(lines)) == (1, 2)
    assert "which hold a description, got photos/1.bmp" in problem


def test_the_gallery_shows_the_captions_of_earlier_runs_too(caption, folder):
    caption("-i", IN_ORDER[2], "--output", "captions.txt")
    command = ("-i", "photos", "gone.jpg", "--output", "captions.txt", "--gallery", "pages/a.html")
    assert caption(*command)[0] == 1
    page = Path("pages/a.html").read_text(encoding="utf-8")
    places = [page.index(f'<img src="../{name}" alt="') for name in IN_ORDER]
    assert places == sorted(places)
    assert "gone.jpg" not in page


def test_the_attention_of_one_image_is_drawn_with_its_caption(caption, folder):
    for _ in range(2):  # an older picture gives way
        status, (line,), problems = caption("-i", IN_ORDER[0], "--attention", "new/figure.png")
        assert (status, problems) == (0, [])
        with Image.open("new/figure.png") as picture:
            assert (picture.format, picture.width) == ("PNG", 2010)
            assert picture.getexif()[0x010E] == line


def test_a_figure_does_not_overwrite_the_photograph(caption, folder):
    content = Path(IN_ORDER[0]).read_bytes()
    status, lines, (problem,) = caption("-i", IN_ORDER[0], "--attention", IN_ORDER[0])
    assert (status, lines) == (2, [])
    assert "1.jpg, which is another file" in problem
    assert Path(IN_ORDER[0]).read_bytes() == content


@contextmanager
def captioning_many(root):
    """Runs the command up to its first caption. It captions more photographs than a pipe holds
    lines, so it cannot end until the test reads on."""
    for number in range(4000):
        shutil.copy("photos/1.jpg", f"photos/sub/{number}.jpg")
    command = [*COMMAND, "-i", "photos"]
    # Tests that run in the background ignore Ctrl-C, and their child processes inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*command, "--model", root], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        process.stdout.readline()
        yield process


def test_a_reader_that_closes_the_pipe_is_no_error(tiny_root, folder):
    with captioning_many(tiny_root) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is no signal there")
def test_ctrl_c_ends_the_command_with_one_word(tiny_root, folder):
    with captioning_many(tiny_root) as process:
        process.send_signal(signal.SIGINT)
        _, problems = process.communicate()
    assert (process.returncode, problems) == (130, b"Stopped.\n")


class Screen(io.TextIOWrapper):
    """A console for standard output and stderr."""

    def __init__(self):
        super().__init__(io.BytesIO(), encoding="utf-8", newline="")

    def isatty(self):
        return True

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode()


def test_at_a_console_a_progress_bar_stays_below_the_captions(
    tiny_root, caption, folder, monkeypatch
):
    _, lines, _ = caption("-i", "photos")
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    command = ["--model", str(tiny_root), "-i"]
    assert caption_command.main([*command, "photos"]) == 0
    for line in lines:
        assert f"\r{line}\n" in screen.text()  # where the bar was
    assert "4/4" in screen.text()

    monkeypatch.setattr(sys, "stdout", alone := Screen())
    monkeypatch.setattr(sys, "stderr", alone)
    caption_command.main([*command, IN_ORDER[0]])
    assert alone.text().count("\n") == 1 and "\r" not in alone.text()


def test_json_is_printed_in_utf_8_whatever_the_encoding_of_the_console(tiny_root, folder):
    Path("photos/1.jpg").rename("犬.jpg")
    done = subprocess.run(
        [*COMMAND, "-i", "犬.jpg", "--model", tiny_root, "--format", "jsonl"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert json.loads(done.stdout.decode("utf-8"))["image"] == "犬.jpg"
