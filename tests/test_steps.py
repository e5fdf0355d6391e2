"""The notebook's steps as commands, from archives to scores."""

import json
import sys
from pathlib import Path

import pytest
from conftest import build_tiny_encoder

from captioning import __main__ as steps
from captioning.export import export_encoder
from captioning.settings import Files


def test_the_steps_lead_from_archives_to_scores(
    archives, tmp_path, tiny_settings, monkeypatch, capsys
):
    monkeypatch.setattr(steps, "TrainingSettings", lambda seed, decoder: tiny_settings)
    monkeypatch.setattr(steps.TrainingSettings, "seed", 0, raising=False)
    monkeypatch.setattr(steps.TrainingSettings, "decoder", "attention", raising=False)
    root = tmp_path / "root"
    files = Files(root)

    def step(*arguments):
        assert steps.main(["--root", str(root), *map(str, arguments)]) == 0
        return capsys.readouterr().out

    step("download", "--source", archives)
    findings = step("check")
    assert "     0  images in no split" in findings
    assert files.descriptions.read_text().startswith("000_drawing.jpg\ta red circle\n")

    export_encoder(build_tiny_encoder(), files.models)
    step("features")
    step("train")
    scores = json.loads(step("evaluate", "--split", "test", "--json"))
    assert scores["CIDEr"] > 1  # a model that knows colours and shapes; guessing gives about 0.5
    assert scores["distinct captions"] > 1
    table = step("evaluate", "--split", "development")
    assert table.splitlines()[0].startswith("BLEU-1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["download", "--source", "gone"], "no archive in gone"),
        (["check"], "python -m captioning download"),
        (["features"], "python -m captioning check"),
        (["train"], "python -m captioning check"),
        (["evaluate"], "tokenizer.p"),
    ],
)
def test_a_step_taken_too_early_is_one_line_on_stderr(arguments, message, tmp_path, capsys):
    Path(tmp_path, "models").mkdir()
    Path(tmp_path, "models", "encoder.xml").touch()
    assert steps.main(["--root", str(tmp_path), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_step_whose_packages_are_missing_says_how_to_install_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "captioning.training", None)
    assert steps.main(["--root", str(tmp_path), "train"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install -r requirements.txt" in line


def test_without_a_step_the_help_lists_them(capsys):
    with pytest.raises(SystemExit):
        steps.main(["--help"])
    text = capsys.readouterr().out
    for name in ("download", "check", "features", "train", "evaluate"):
        assert name in text
