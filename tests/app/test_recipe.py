"""The recipe: which steps run in which folder, on which images and captions."""

from dataclasses import replace

import pytest

from captioning.app import pipeline, recipe
from captioning.app.recipe import follow_recipe
from captioning.data.augmentation import HORIZONTAL_FLIP
from captioning.data.dataset import Dataset
from captioning.export.quantisation import QualityLoss
from captioning.paths import Paths
from captioning.settings import TrainingSettings

SETTINGS = TrainingSettings()
WITHOUT_REWARDS = replace(SETTINGS, members=1, student=False, self_critical_epochs=0)


@pytest.fixture
def paths(tmp_path, archives) -> Paths:
    paths = Paths(tmp_path / "root")
    pipeline.download(paths, archives)
    pipeline.check(paths)
    return paths


@pytest.fixture
def calls(paths, monkeypatch) -> list[tuple]:
    """Replaces the steps; each adds its name, its folder and its arguments to the list."""
    calls = []
    results = {
        "extract_features": lambda paths: {},
        "train": lambda paths: [{"stage": "self-critical"}],
        "fine_tune": lambda paths: paths.fine_tuned_weights,
        "quantise": lambda paths: (0.6, 0.6),
        "calibrate": lambda paths: 900,
    }

    def replace_step(name, result):
        def step(step_paths, *arguments, **options):
            folder = str(step_paths.root.relative_to(paths.root))
            calls.append((name, folder, *arguments, options))
            return result(step_paths)

        monkeypatch.setattr(pipeline, name, step)

    for name, result in results.items():
        replace_step(name, result)
    return calls


def test_the_caption_model_that_learned_with_the_encoder_learns_on_from_rewards(paths, calls):
    before = Paths(paths.root / "pretrained")
    flipped = {"augmentations": [HORIZONTAL_FLIP]}
    assert follow_recipe(paths, SETTINGS, "mine.h5") == [{"stage": "self-critical"}]
    assert calls == [
        ("extract_features", "pretrained", {"weights": "mine.h5", **flipped}),
        ("train", "pretrained", WITHOUT_REWARDS, {}),
        ("fine_tune", "pretrained", WITHOUT_REWARDS, "mine.h5", {}),
        ("extract_features", ".", {"weights": str(before.fine_tuned_weights), **flipped}),
        ("train", ".", SETTINGS, {"start": before.fine_tuning}),
        ("quantise", ".", {}),
        ("calibrate", ".", {}),
    ]


def test_both_encoders_see_the_same_images_and_captions(paths, calls):
    follow_recipe(paths, SETTINGS)
    before = Paths(paths.root / "pretrained")
    assert Dataset.load(before.dataset).images.samefile(paths.images)
    assert before.descriptions.read_bytes() == paths.descriptions.read_bytes()


def test_without_settings_the_defaults_suit_the_data(paths, calls):
    follow_recipe(paths)
    ((settings, _),) = [call[2:] for call in calls if call[:2] == ("train", ".")]
    assert settings == pipeline.default_settings(paths)


@pytest.mark.parametrize("package", ["keras", "nncf"])
def test_a_missing_package_is_named_before_hours_of_training(paths, calls, monkeypatch, package):
    require_package = recipe.require_package
    monkeypatch.setattr(
        recipe,
        "require_package",
        lambda name: require_package("no_such_package" if name == package else name),
    )
    with pytest.raises(ModuleNotFoundError):
        follow_recipe(paths, SETTINGS)
    assert calls == []


def test_a_model_that_would_lose_by_quantisation_stays_in_floats(paths, calls, monkeypatch, capsys):
    def quantise(paths):
        raise QualityLoss("Expected at most 0.5 CIDEr less, got 2.")

    monkeypatch.setattr(pipeline, "quantise", quantise)
    assert follow_recipe(paths, SETTINGS) == [{"stage": "self-critical"}]
    assert calls[-1][0] == "calibrate"
    assert capsys.readouterr().err.endswith("got 2. The recipe goes on.\n")
