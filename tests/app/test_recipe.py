"""The recipe: which steps run in which folder, and how it is resumed."""

from dataclasses import replace

import pytest

from captioning.app import pipeline
from captioning.app.recipe import follow_recipe
from captioning.data.dataset import Dataset
from captioning.paths import Paths
from captioning.settings import TrainingSettings

SETTINGS = TrainingSettings()
IN_ROUND = replace(SETTINGS, student=False, self_critical_epochs=0, fine_tuning_rounds=0)


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

    def replace_step(name, act=lambda paths: None):
        def step(step_paths, *arguments, **options):
            folder = str(step_paths.root.relative_to(paths.root))
            calls.append((name, folder, *arguments, *options.values()))
            return act(step_paths)

        monkeypatch.setattr(pipeline, name, step)

    replace_step("extract_features", write_maps)
    replace_step("train", lambda paths: [{"stage": "cross-entropy"}])
    replace_step("fine_tune", write_weights)
    for name in ("quantise", "calibrate"):
        replace_step(name)
    return calls


def write_maps(paths):
    """Those of more than 10,000 images: see `FeatureStore`."""
    for name in ("feature_maps.bin", "feature_maps-2.bin", "feature_maps.bin.json"):
        (paths.root / name).touch()
        (paths.root / f"cropped_flipped_{name}").touch()


def write_weights(paths):
    paths.models.mkdir(exist_ok=True)
    paths.fine_tuned_weights.touch()
    paths.backbone_maps.touch()


def test_each_round_fine_tunes_the_encoder_of_the_round_before(paths, calls):
    first, second = (str(Paths(paths.root / f"round-{n}").fine_tuned_weights) for n in (1, 2))
    assert follow_recipe(paths, SETTINGS) == [{"stage": "cross-entropy"}]
    assert calls == [
        ("extract_features", "round-1", "imagenet"),
        ("train", "round-1", IN_ROUND),
        ("fine_tune", "round-1", IN_ROUND, "imagenet"),
        ("extract_features", "round-2", first),
        ("train", "round-2", IN_ROUND),
        ("fine_tune", "round-2", IN_ROUND, first),
        ("extract_features", ".", second),
        ("train", ".", SETTINGS),
        ("quantise", "."),
        ("calibrate", "."),
    ]


def test_a_round_has_the_images_and_captions_of_the_root(paths, calls):
    follow_recipe(paths, SETTINGS)
    in_round = Paths(paths.root / "round-1")
    assert Dataset.load(in_round.dataset).images.samefile(paths.images)
    assert in_round.descriptions.read_bytes() == paths.descriptions.read_bytes()


def test_the_maps_of_a_finished_round_are_deleted_and_its_weights_kept(paths, calls):
    follow_recipe(paths, SETTINGS)
    left = {path.name for path in (paths.root / "round-1").rglob("*") if path.is_file()}
    assert left == {
        "dataset.json", "descriptions.txt", "identity.json", "fine_tuned.weights.h5"
    }  # fmt: skip
    assert paths.feature_maps.exists()


def test_a_finished_round_is_not_repeated(paths, calls):
    follow_recipe(paths, replace(SETTINGS, fine_tuning_rounds=1))
    calls.clear()
    follow_recipe(paths, replace(SETTINGS, fine_tuning_rounds=2))
    assert [(name, folder) for name, folder, *_ in calls if folder == "round-1"] == []
    assert calls[0][:2] == ("extract_features", "round-2")


@pytest.mark.parametrize("change", ["settings", "weights", "captions"])
def test_a_round_of_another_recipe_is_refused(paths, calls, change):
    follow_recipe(paths, SETTINGS)
    calls.clear()
    settings, weights = SETTINGS, "imagenet"
    if change == "settings":
        settings = replace(SETTINGS, seed=1)
    elif change == "weights":
        weights = "mine.h5"
    else:
        paths.descriptions.write_text(paths.descriptions.read_text().replace("red", "blue"))
    with pytest.raises(ValueError, match="round-1, got another. Delete the folder"):
        follow_recipe(paths, settings, weights)
    assert calls == []


def test_without_rounds_the_encoder_is_built_from_the_weights(paths, calls):
    follow_recipe(paths, replace(SETTINGS, fine_tuning_rounds=0), weights="mine.h5")
    assert calls[0] == ("extract_features", ".", "mine.h5")
