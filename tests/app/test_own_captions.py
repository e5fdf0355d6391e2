"""The README's example: train a model on twenty images and a table of captions, and use it."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from tiny_world import write_folder

from captioning.app import caption_command, cli
from captioning.data.dataset import Dataset

pytestmark = pytest.mark.slow

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Train it on my images")[2].partition("\n## ")[0]
(TRAIN,) = re.findall(r"(?m)^captioning (all .*)$", SECTION)
(CAPTION,) = re.findall(r"(?m)^caption (.* --model my_run)$", SECTION)
# Smaller numbers than those that the command would choose for so few images, to save time.
SMALL = "--set epochs=30 members=2 student_epochs=30 self_critical_epochs=1"
SMALL += " units=64 embedding_units=64 learning_rate=0.005"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which the README's command has run, and the first caption of each image."""
    folder = tmp_path_factory.mktemp("own")
    captions = write_folder(folder)
    shutil.copy(folder / "my_photos" / "000_drawing.jpg", folder / "photo.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main([*shlex.split(TRAIN), *SMALL.split()]) == 0
    return folder, captions


def test_one_command_trains_a_model_below_the_root_from_images_and_a_table(trained):
    folder, captions = trained
    assert sorted(path.name for path in folder.iterdir()) == [
        "my_captions.csv",
        "my_photos",
        "my_run",
        "photo.jpg",
    ]
    dataset = Dataset.load(folder / "my_run" / "dataset.json")
    assert dataset.captions.keys() == captions.keys()
    assert sorted(sum(dataset.splits.values(), [])) == sorted(captions)
    assert all(dataset.splits.values())


def test_the_second_command_captions_an_image_with_the_model(trained, monkeypatch, capsys):
    folder, _ = trained
    monkeypatch.chdir(folder)
    assert caption_command.main(shlex.split(CAPTION)) == 0
    assert "red circle" in capsys.readouterr().out


def test_colour_and_shape_are_right_in_most_of_the_twenty_images(trained, monkeypatch, capsys):
    folder, captions = trained
    monkeypatch.chdir(folder)
    paths = [str(folder / "my_photos" / name) for name in captions]
    assert caption_command.main(["--model", "my_run", *paths]) == 0
    generated = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    correct = [
        name
        for path, name in zip(paths, captions, strict=True)
        if colour_and_shape(captions[name]) <= set(generated[path].split())
    ]
    assert len(correct) >= 15


def test_a_later_step_needs_nothing_but_the_root(trained, capsys):
    folder, _ = trained
    assert cli.main(["evaluate", "--root", str(folder / "my_run"), "--split", "train"]) == 0
    assert "CIDEr" in capsys.readouterr().out


def colour_and_shape(caption):
    return set(caption.lower().split()[1:3])
