"""The command as a person runs it, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from captioning.captioner import Captioner
from captioning.settings import Files

ROOT = Path(__file__).parents[1]


def run(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "Testing_caption_generator.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def image_paths(tiny_root):
    return sorted(Files(tiny_root).images.glob("*.jpg"))


def test_one_image_prints_its_caption_and_nothing_else(tiny_root, image_paths):
    done = run("-i", image_paths[0], "--model", tiny_root)
    assert (done.returncode, done.stderr) == (0, "")
    (caption,) = done.stdout.splitlines()
    assert caption == Captioner.load(tiny_root).caption(image_paths[0]).text


def test_several_images_print_a_line_each_in_their_order(tiny_root, image_paths):
    done = run("-i", *image_paths[2::-1], "--model", tiny_root)
    assert done.returncode == 0
    paths = [line.split(": ")[0] for line in done.stdout.splitlines()]
    assert paths == [str(path) for path in image_paths[2::-1]]


def test_greedy_search_is_a_beam_of_one(tiny_root, image_paths):
    done = run("-i", image_paths[0], "--model", tiny_root, "--beam-width", 1)
    assert done.returncode == 0
    assert done.stdout.strip()


def test_a_missing_file_is_one_line_on_stderr_and_status_2(tiny_root, tmp_path):
    done = run("-i", tmp_path / "gone.jpg", "--model", tiny_root)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "gone.jpg" in line


def test_a_broken_file_among_good_ones_is_status_1_and_stops_nothing(
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
        ((), "-i/--image"),
        (("-i", "a.jpg", "--beam-width", "0"), "wanted a whole number from 1 to 100, received 0"),
        (
            ("-i", "a.jpg", "--beam-width", "wide"),
            "wanted a whole number from 1 to 100",
        ),
        (("-i", "a.jpg", "--beam-width", "100000"), "wanted a whole number from 1 to 100"),
        (("-i", "a.jpg", "--length-normalisation", "2"), "wanted a number from 0 to 1"),
        (("-i", "a.jpg", "--length-normalisation", "long"), "wanted a number from 0 to 1"),
    ],
)
def test_wrong_words_are_explained(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_captioning_imports_nothing_that_only_training_needs():
    code = "import sys, Testing_caption_generator; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    imported = {module.split(".")[0] for module in done.stdout.split()}
    assert imported.isdisjoint({"keras", "tensorflow", "matplotlib", "pycocoevalcap", "scipy"})
    assert {"numpy", "openvino", "PIL"} <= imported
