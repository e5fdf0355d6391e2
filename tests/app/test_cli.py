"""The command `captioning`: its help, its options, what it prints, and how its steps fail."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from captioning.app import cli, pipeline
from captioning.app.cli import _parser, main
from captioning.data.dataset import Dataset, write_descriptions
from captioning.files import only_writer
from captioning.paths import Paths
from captioning.settings import SPLITS, SearchSettings, TrainingSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def calls(monkeypatch):
    """Replaces the steps of the pipeline; collects their names and arguments."""
    calls = []
    results = {
        "check": ("the data set", "the findings"),
        "evaluate": ({}, {"CIDEr": 0.5}),
        "quantise": (0.611, 0.613),
        "calibrate": 1900,
        "default_settings": TrainingSettings(),
    }

    def replace(name):
        def step(paths, *arguments):
            calls.append((name, paths.root, *arguments))
            return results.get(name, f"result of {name}")

        monkeypatch.setattr(cli if name == "follow_recipe" else pipeline, name, step)

    for name in (
        "download", "check", "extract_features", "default_settings", "train", "fine_tune",
        "calibrate", "evaluate", "export", "quantise", "report", "serve", "follow_recipe",
    ):  # fmt: skip
        replace(name)
    return calls


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["download"], [("download", None)]),
        (["download", "--source", "a.zip"], [("download", Path("a.zip"))]),
        (["check"], [("check", None, None)]),
        (
            ["check", "--captions", "a.csv", "b.csv", "--images", "photos"],
            [("check", [Path("a.csv"), Path("b.csv")], Path("photos"))],
        ),
        (["features"], [("extract_features", None, None, False)]),
        (
            ["features", "--encoder", "VGG16", "--weights", "a.h5", "--pooled"],
            [("extract_features", "VGG16", "a.h5", True)],
        ),
        (
            "train --seed 3 --set epochs=7 decoder=merge --devices 2 --start old".split(),
            [
                ("default_settings", {"seed": 3, "epochs": 7, "decoder": "merge"}),
                ("train", TrainingSettings(), 2, False, Path("old")),
            ],
        ),
        (
            ["fine-tune", "--weights", "a.h5"],
            [("default_settings", {"seed": 0}), ("fine_tune", TrainingSettings(), "a.h5")],
        ),
        (["evaluate"], [("evaluate", "test", SearchSettings())]),
        (
            ["evaluate", "--split", "train", "--beam-width", "1"],
            [("evaluate", "train", SearchSettings(1))],
        ),
        (
            ["evaluate", "--decode", "beam"],
            [("evaluate", "test", SearchSettings(3, decoding="beam"))],
        ),
        (
            ["evaluate", "--decode", "beam", "--beam-width", "5"],
            [("evaluate", "test", SearchSettings(5, decoding="beam"))],
        ),
        (["export"], [("export",)]),
        (["quantise"], [("quantise",)]),
        (["calibrate"], [("calibrate",)]),
        (["report"], [("report", "development", SearchSettings(), None)]),
        (
            ["report", "--split", "test", "--beam-width", "5", "--output", "a.html"],
            [("report", "test", SearchSettings(5), Path("a.html"))],
        ),
        (["serve", "--port", "80", "--open"], [("serve", 80, True)]),
        (
            ["all"],
            [
                ("check", None, None),
                ("default_settings", {"seed": 0}),
                ("extract_features", None, None, False),
                ("default_settings", {"seed": 0}),
                ("train", TrainingSettings(), None, False, None),
                ("calibrate",),
                ("evaluate", "test", SearchSettings()),
            ],
        ),
        (
            ["recipe", "--set", "fine_tuning_epochs=1", "--weights", "a.h5"],
            [
                ("check", None, None),
                ("default_settings", {"seed": 0, "fine_tuning_epochs": 1}),
                ("follow_recipe", TrainingSettings(), "a.h5"),
            ],
        ),
        (
            ["all", "--on-the-fly"],
            [
                ("check", None, None),
                ("default_settings", {"seed": 0}),
                ("extract_features", None, None, True),
                ("default_settings", {"seed": 0}),
                ("train", TrainingSettings(), None, True, None),
                ("calibrate",),
                ("evaluate", "test", SearchSettings()),
            ],
        ),
    ],
)
def test_a_step_calls_the_function_of_the_pipeline_with_its_options(
    arguments, expected, calls, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("tokenizer.p").touch()
    assert main(arguments) == 0
    assert calls == [(name, Path(), *rest) for name, *rest in expected]
    calls.clear()
    assert main([*arguments, "--root", "my_run"]) == 0
    assert main(["--root", "my_run", *arguments]) == 0
    assert calls == 2 * [(name, Path("my_run"), *rest) for name, *rest in expected]


def test_the_page_uses_the_shipped_model_if_the_current_folder_holds_none(
    calls, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["serve"]) == 0
    assert main(["serve", "--root", "."]) == 0
    Path("tokenizer.p").touch()
    assert main(["serve"]) == 0
    assert calls == [("serve", root, 7860, False) for root in (ROOT, Path(), Path())]


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["check"], "the findings\nthe data set\n"),
        (["fine-tune"], "result of fine_tune\n"),
        (["report"], "result of report\n"),
        (["quantise"], "development CIDEr 61.1 before, 61.3 after: kept\n"),
        (["evaluate", "--json"], '{"CIDEr": 0.5}\n'),
        (["calibrate"], "fitted on 1,900 captions\n"),
    ],
)
def test_a_step_prints_what_the_function_returns(arguments, printed, calls, capsys):
    assert main(arguments) == 0
    assert capsys.readouterr().out == printed


def test_all_prints_the_scores_alone_to_standard_output(calls, capsys):
    assert main(["all", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.out == '{"CIDEr": 0.5}\n'
    assert printed.err == "the findings\nthe data set\nfitted on 1,900 captions\n"


def test_the_help_lists_the_steps_and_a_missing_step_is_an_error(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    names = "download check features train fine-tune evaluate export quantise report all recipe"
    for name in [*names.split(), "serve", "manifest", "at-scale", "clear-cache"]:
        assert f"\n    {name} " in text
    with pytest.raises(SystemExit):
        main([])
    assert "STEP" in capsys.readouterr().err


def test_the_help_needs_no_installed_package():
    code = "import sys; from captioning.app.cli import main; main(['train', '--help'])"
    subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append('.'); {code}"],
                   cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=60)  # fmt: skip


@pytest.mark.parametrize("width", ["0", "-3", "101", "wide"])
def test_a_wrong_beam_width_is_refused_before_anything_is_done(width, calls, capsys):
    with pytest.raises(SystemExit):
        main(["all", "--beam-width", width])
    assert f"expected a whole number from 1 to 100, got {width}" in capsys.readouterr().err
    assert calls == []


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_the_error_of_a_wrong_port_names_the_allowed_ones(port, capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--port", port])
    assert f"expected a whole number from 1 to 65535, got {port}" in capsys.readouterr().err


@pytest.mark.parametrize("value", [True, False])
def test_a_setting_is_converted_to_its_type(value):
    settings = [f"student={value}", "epochs=7", "dropout=0.1", "decoder=merge"]
    options = _parser().parse_args(["train", "--set", *settings])
    assert dict(options.set) == {
        "student": value, "epochs": 7, "dropout": 0.1, "decoder": "merge"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("epoch=1", "one of min_word_count, decoder, embedding_units, units"),
        ("epochs", "expected a whole number for epochs"),
        ("epochs=many", "expected a whole number for epochs, got many"),
        ("dropout=much", "expected a number for dropout, got much"),
        ("student=maybe", "expected True or False for student, got maybe"),
    ],
)
def test_the_error_of_a_wrong_setting_names_the_allowed_values(setting, expected, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--set", setting])
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["download", "--source", "gone"], "no archive in gone"),
        (["check"], "captioning download"),
        (["check", "--captions", "gone.csv"], "Name both"),
        (["check", "--captions", "gone.csv", "--images", "."], "There is no gone.csv"),
        (["features"], "captioning check"),
        (["features", "--pooled"], "captioning check"),
        (["train"], "captioning check"),
        (["fine-tune"], "captioning check"),
        (["quantise"], "captioning check"),
        (["calibrate"], "captioning check"),
        (["evaluate"], "captioning check"),
        (["export"], "captioning train"),
        (["report"], "captioning check"),
    ],
)
def test_a_step_without_its_files_is_one_line_on_stderr(arguments, message, tmp_path, capsys):
    Path(tmp_path, "models").mkdir()
    Path(tmp_path, "models", "encoder.xml").touch()
    assert main(["--root", str(tmp_path), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_step_without_its_packages_names_the_command_that_installs_them(tmp_path):
    code = "import sys; sys.modules['keras'] = None; from captioning.app.cli import main; "
    code += f"sys.exit(main(['export', '--root', {str(tmp_path)!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].endswith('pip install ".[train]"')
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "step",
    ["download", "check", "features", "train", "fine-tune", "export", "quantise", "calibrate"],
)
def test_a_step_is_refused_in_one_line_while_another_writes_to_the_folder(step, tmp_path, capsys):
    paths = Paths(tmp_path)
    captions = {"a.jpg": ["a dog"]}
    Dataset(paths.images, captions, dict.fromkeys(SPLITS, ["a.jpg"])).save(paths.dataset)
    write_descriptions(paths.descriptions, captions)
    with only_writer(tmp_path):
        assert main(["--root", str(tmp_path), step]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Expected one run at a time that writes {tmp_path}, got a second.")
    assert {path.name for path in tmp_path.iterdir()} == {"dataset.json", "descriptions.txt"}


def test_a_step_in_a_missing_folder_does_not_create_it(tmp_path, capsys):
    assert main(["--root", str(tmp_path / "missing"), "features"]) == 1
    assert "missing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_a_step_with_one_word(tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Dataset, "load", stop)
    assert main(["--root", str(tmp_path), "train"]) == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_names_that_the_console_cannot_print_are_escaped(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(12):
        name = "猫.png" if number == 0 else f"{number}.png"
        Image.new("RGB", (60, 40), (20 * number, 90, 90)).save(tmp_path / "photos" / name)
    rows = ["image,caption", *(f"{n}.png,a plain colour number {n}" for n in range(1, 12))]
    (tmp_path / "captions.csv").write_text("\n".join(rows))
    done = subprocess.run(
        [sys.executable, "-m", "captioning", "check", "--root", "run",
         "--captions", "captions.csv", "--images", "photos"],
        capture_output=True, cwd=tmp_path, check=True, timeout=60,
        env={"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert rb"images without a caption: \u732b.png" in done.stdout
    splits = json.loads((tmp_path / "run" / "dataset.json").read_text())["splits"]
    assert sum(map(len, splits.values())) == 11


def test_clear_cache_names_the_folder_and_says_how_much_it_deleted(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CAPTIONING_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    for digit in "01":
        (tmp_path / "cache" / f"{digit * 64}.network").write_bytes(bytes(1_600_000))
    assert main(["clear-cache"]) == 0
    assert capsys.readouterr().out == (
        f"Deleted 2 compiled networks (3 MB) in {tmp_path / 'cache'}.\n"
    )
    assert not (tmp_path / "cache").exists()
    monkeypatch.setenv("CAPTIONING_CACHE", "off")
    assert main(["clear-cache"]) == 0
    assert capsys.readouterr().out == "There is no model cache.\n"
