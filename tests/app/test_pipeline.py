"""The notebook's steps as commands, from archives to scores."""

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import build_tiny_encoder

from captioning.app import cli as command
from captioning.data.augmentation import AUGMENTATIONS
from captioning.data.dataset import Dataset
from captioning.data.feature_store import FeatureStore
from captioning.data.vocabulary import Vocabulary
from captioning.export.keras_to_openvino import export_encoder, make_encoder_id
from captioning.inference.network_files import (
    DECODER_METADATA_KEYS,
    DECODER_PREFILL,
    DECODER_STEP,
    read_encoder_id,
    read_network,
)
from captioning.inference.networks import Decoder, Encoder
from captioning.models.image_encoder import SplitEncoder
from captioning.paths import Paths


def test_the_steps_lead_from_archives_to_scores(archives, tmp_path, tiny_settings, capsys):
    root = tmp_path / "root"
    files = Paths(root)

    def step(*arguments):
        assert command.main(["--root", str(root), *map(str, arguments)]) == 0
        return capsys.readouterr().out

    step("download", "--source", archives)
    findings = step("check")
    assert "     0  images in no split" in findings
    assert files.descriptions.read_text().startswith("000_drawing.jpg\ta red circle\n")

    export_encoder(build_tiny_encoder(), files.models)
    step("features")
    step("train", "--set", *(f"{name}={value}" for name, value in asdict(tiny_settings).items()))
    history = json.loads((files.models / "training.json").read_text())["history"]
    assert [epoch["stage"] for epoch in history].count("self-critical") == 1
    assert not any("member" in epoch for epoch in history)  # no student was asked for
    scores = json.loads(step("evaluate", "--split", "test", "--json"))
    assert scores["CIDEr"] > 1  # a model that knows colours and shapes; guessing gives about 0.5
    assert scores["distinct captions"] > 1
    table = step("evaluate", "--split", "development")
    assert table.splitlines()[0].startswith("BLEU-1")

    # What made the features is named by all that follow from them.
    identity = Encoder(files.models).encoder_id
    for view in AUGMENTATIONS:
        assert FeatureStore(files.augmented_feature_maps(view.name)).encoder_id == identity
    assert json.loads((files.models / "training.json").read_text())["encoder"] == identity
    assert Decoder.load(files.models, Vocabulary.load(files.vocabulary)).encoder_id == identity
    for name, message in (("vgg16", "VGG16, which would replace it"), ("vgg", "Received: vgg")):
        assert command.main(["--root", str(root), "features", "--encoder", name]) == 1
        assert message in capsys.readouterr().err

    assert step("report") == f"{files.report}\n"
    page = files.report.read_text(encoding="utf-8")
    assert "6 images of the development split" in page
    assert "self-critical" in page and 'src="Flicker8k_Dataset/' in page


@pytest.fixture
def split_encoder(monkeypatch) -> SplitEncoder:
    """The tiny world's, in the place of what fine-tuning builds."""
    encoder = build_tiny_split_encoder()
    monkeypatch.setattr("captioning.training.fine_tuning.build_split_encoder", lambda *_: encoder)
    return encoder


@pytest.fixture
def fine_tune(split_encoder, tiny_root, tmp_path, tiny_settings) -> tuple[Paths, list[str]]:
    """A root whose feature maps are those of the split encoder, and the command for it."""
    root = tmp_path / "root"
    files = Paths(root)
    shutil.copytree(tiny_root, root, ignore=shutil.ignore_patterns("*_maps.bin*", "encoder.*"))
    export_encoder(split_encoder.whole, files.models)
    for step in ("check", "features"):
        assert command.main(["--root", str(root), step]) == 0
    _record_encoder(files, make_encoder_id(split_encoder.whole))  # the old one sees the same
    # The student may be smaller than its teacher.
    settings = {"student_epochs": 1, "fine_tuning_epochs": 2, "units": 16, "embedding_units": 16}
    settings = [f"{name}={value}" for name, value in (asdict(tiny_settings) | settings).items()]
    return files, ["--root", str(root), "fine-tune", "--set", *settings]


def _record_encoder(files, identity):
    record = json.loads((files.models / "training.json").read_text())
    (files.models / "training.json").write_text(json.dumps(record | {"encoder": identity}))


def test_an_encoder_is_not_fine_tuned_by_a_model_of_another(fine_tune, capsys):
    files, command_line = fine_tune
    _record_encoder(files, "encoder 0123")
    assert command.main(command_line) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "do not belong together" in error and "Train with these maps" in error
    assert not files.backbone_maps.exists()


def test_an_encoder_is_fine_tuned_and_made_anew_of_its_weights(split_encoder, fine_tune, capsys):
    files, command_line = fine_tune
    assert command.main(command_line) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(files.fine_tuned_weights)
    names = Dataset.load(files.dataset).splits
    assert [*FeatureStore(files.backbone_maps)] == names["train"] + names["development"]
    assert [*FeatureStore(files.flipped_backbone_maps)] == names["train"]
    tuned = split_encoder.exit_flow.get_weights()
    again = build_tiny_split_encoder()
    again.whole.get_layer("network").load_weights(files.fine_tuned_weights)
    for one, other in zip(tuned, again.exit_flow.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_encoder_that_learnt_nothing_of_use_is_not_written(fine_tune, capsys, monkeypatch):
    files, command_line = fine_tune
    monkeypatch.setattr("captioning.training.fine_tuning.fine_tune", lambda *_: [])
    assert command.main(command_line) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "The encoder stays as it is" in error and str(files.fine_tuning) in error
    assert not files.fine_tuned_weights.exists()


def build_tiny_split_encoder() -> SplitEncoder:
    """What `build_tiny_encoder` sees, in two steps: a backbone of single pixels, and an exit flow that
    begins by putting those of a line side by side."""
    images = keras.Input((32, 48, 3), dtype="uint8")
    scaled = keras.layers.Rescaling(-4 / 255, offset=4)(images)
    pixels = keras.layers.AveragePooling2D(8)(scaled)  # (batch, 4, 6, 3)
    seen = keras.Input((4, 6, 3))
    side_by_side = keras.initializers.Constant(np.eye(18).reshape(1, 6, 3, 18))
    lines = keras.layers.Conv2D(18, (1, 6), kernel_initializer=side_by_side)(seen)
    exit_flow = keras.Model(seen, lines, name="exit_flow")
    network = keras.Model(seen, exit_flow(seen), name="network")
    return SplitEncoder(
        keras.Model(images, keras.layers.Reshape((4, 18))(network(pixels)), name="encoder"),
        keras.Model(images, keras.layers.Reshape((24, 3))(pixels), name="encoder"),
        exit_flow,
    )


def test_the_decoder_is_exported_anew_with_or_without_the_data_set(tiny_root, tmp_path, capsys):
    root = tmp_path / "root"
    shutil.copytree(tiny_root, root)
    files = Paths(root)
    decoder_files = [files.models / name for name in (DECODER_PREFILL, DECODER_STEP)]

    def notes():
        networks = map(read_network, decoder_files)
        return [
            str(network.get_rt_info(["captioning", key]).value)
            for network in networks
            for key in DECODER_METADATA_KEYS
        ] + [read_encoder_id(read_network(path)) for path in decoder_files]

    before = notes()
    assert command.main(["--root", str(root), "export"]) == 0  # no dataset.json: the present limit
    assert notes() == before
    assert command.main(["--root", str(root), "check"]) == 0
    for path in decoder_files:
        path.unlink()
    assert command.main(["--root", str(root), "export"]) == 0
    assert notes() == before


def test_a_model_is_not_exported_with_the_vocabulary_of_another(tiny_root, tmp_path, capsys):
    shutil.copytree(tiny_root / "models", tmp_path / "models")
    Vocabulary(["a", "dog"]).save(Paths(tmp_path).vocabulary)
    assert command.main(["--root", str(tmp_path), "export"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "do not belong together" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["download", "--source", "gone"], "no archive in gone"),
        (["check"], "python -m captioning download"),
        (["check", "--captions", "gone.csv"], "--captions and --images go together"),
        (["check", "--captions", "gone.csv", "--images", "."], "There is no gone.csv"),
        (["features"], "python -m captioning check"),
        (["train"], "python -m captioning check"),
        (["fine-tune"], "python -m captioning check"),
        (["quantise"], "python -m captioning check"),
        (["evaluate"], "python -m captioning check"),
        (["export"], "python -m captioning train"),
        (["report"], "python -m captioning check"),
    ],
)
def test_a_step_taken_too_early_is_one_line_on_stderr(arguments, message, tmp_path, capsys):
    Path(tmp_path, "models").mkdir()
    Path(tmp_path, "models", "encoder.xml").touch()
    assert command.main(["--root", str(tmp_path), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_step_whose_packages_are_missing_says_how_to_install_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "captioning.training.train", None)
    assert command.main(["--root", str(tmp_path), "train"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install -r requirements.txt" in line


@pytest.mark.parametrize("step", ["train", "fine-tune"])
def test_training_without_features_is_one_line_on_stderr(
    step, tiny_root, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        "captioning.training.fine_tuning.build_split_encoder", lambda *_: pytest.fail("too early")
    )
    root = tmp_path / "root"
    shutil.copytree(tiny_root, root, ignore=shutil.ignore_patterns("*_maps.bin*"))
    assert command.main(["--root", str(root), "check"]) == 0
    assert command.main(["--root", str(root), step]) == 1
    assert "python -m captioning features" in capsys.readouterr().err.splitlines()[-1]


def test_the_help_lists_the_steps_and_without_a_step_they_are_asked_for(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    text = capsys.readouterr().out
    names = "download check features train fine-tune evaluate export quantise report all serve"
    for name in names.split():
        assert f"\n    {name} " in text
    with pytest.raises(SystemExit):
        command.main([])
    assert "STEP" in capsys.readouterr().err


@pytest.mark.parametrize("width", ["0", "-3", "101", "wide"])
def test_a_beam_width_that_cannot_be_is_refused_before_anything_is_done(width, capsys):
    with pytest.raises(SystemExit):
        command.main(["all", "--beam-width", width])
    assert "wanted a whole number from 1 to 100" in capsys.readouterr().err


@pytest.mark.parametrize("value", [True, False])
def test_a_setting_is_read_as_what_it_is(value):
    settings = [f"student={value}", "epochs=7", "dropout=0.1", "decoder=merge"]
    options = command._parser().parse_args(["train", "--set", *settings])
    assert dict(options.set) == {
        "student": value, "epochs": 7, "dropout": 0.1, "decoder": "merge"
    }  # fmt: skip


def test_settings_may_be_named_one_by_one():
    options = command._parser().parse_args(["train", "--set", "epochs=7", "--set", "members=1"])
    assert dict(options.set) == {"epochs": 7, "members": 1}


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("epoch=1", "one of min_word_count, decoder, embedding_units, units"),
        ("epochs", "wanted a whole number for epochs"),
        ("epochs=many", "wanted a whole number for epochs, received many"),
        ("dropout=much", "wanted a number for dropout, received much"),
        ("student=maybe", "wanted True or False for student, received maybe"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_what_can(setting, wanted, capsys):
    with pytest.raises(SystemExit):
        command.main(["train", "--set", setting])
    assert wanted in capsys.readouterr().err


def test_a_step_stopped_by_a_key_ends_in_a_word(tmp_path, capsys, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("captioning.data.dataset.Dataset.load", stopped)
    assert command.main(["--root", str(tmp_path), "train"]) == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_the_root_may_be_named_before_the_step_or_after_it(tmp_path):
    for arguments in (["--root", str(tmp_path), "check"], ["check", "--root", str(tmp_path)]):
        assert command._parser().parse_args(arguments).root == tmp_path
