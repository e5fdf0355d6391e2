from pathlib import Path

import pytest

from captioning import paths as module
from captioning.paths import Paths, find_model


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of an installed package that brings no model along."""
    monkeypatch.delenv("CAPTIONING_MODEL", raising=False)
    monkeypatch.setattr(module, "_PACKAGE", tmp_path / "captioning")
    return tmp_path / "captioning"


def test_all_files_lie_below_the_root_which_is_the_current_folder():
    assert Paths().dataset == Path("dataset.json")
    assert Paths(Path("run")).scores == Path("run/models/scores.json")
    names = [name for name in vars(Paths) if not name.startswith("_")]
    names.remove("augmented_feature_maps")
    paths = [getattr(Paths(Path("run")), name) for name in names]
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to("run") for path in paths)


def test_the_feature_maps_of_an_augmentation_carry_its_name():
    assert Paths(Path("run")).augmented_feature_maps("flipped") == Path(
        "run/flipped_feature_maps.bin"
    )


def test_the_model_is_the_one_that_was_named(package, monkeypatch):
    monkeypatch.setenv("CAPTIONING_MODEL", "of_the_environment")
    assert find_model("mine") == find_model(Path("mine")) == Path("mine")


def test_the_environment_names_a_model_where_nobody_else_does(package, monkeypatch):
    (package / "shipped").mkdir(parents=True)
    monkeypatch.setenv("CAPTIONING_MODEL", "of_the_environment")
    assert find_model() == Path("of_the_environment")


def test_the_model_comes_with_the_package_or_lies_in_the_checkout(package):
    assert find_model() == package.parent
    (package / "shipped").mkdir(parents=True)
    assert find_model() == package / "shipped"


def test_the_model_of_the_checkout_is_whole():
    shipped = Paths(find_model())
    assert shipped.vocabulary.is_file()
    assert (shipped.models / "encoder.xml").is_file()
