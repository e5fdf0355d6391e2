from pathlib import Path

import pytest

from captioning import paths as module
from captioning.paths import Paths, find_cache, find_model


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of an installed package without a model."""
    monkeypatch.delenv("CAPTIONING_MODEL", raising=False)
    monkeypatch.setattr(module, "_PACKAGE", tmp_path / "captioning")
    return tmp_path / "captioning"


def test_all_files_are_below_the_root_by_default_the_current_folder():
    assert Paths().dataset == Path("dataset.json")
    assert Paths(Path("run")).scores == Path("run/models/scores.json")
    names = [name for name in vars(Paths) if not name.startswith("_")]
    names.remove("augmented_feature_maps")
    paths = [getattr(Paths(Path("run")), name) for name in names]
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to("run") for path in paths)


def test_the_file_of_augmented_feature_maps_bears_the_name_of_the_augmentation():
    assert Paths(Path("run")).augmented_feature_maps("flipped") == Path(
        "run/flipped_feature_maps.bin"
    )


def test_the_named_model_comes_before_the_environment_variable(package, monkeypatch):
    monkeypatch.setenv("CAPTIONING_MODEL", "of_the_environment")
    assert find_model("mine") == find_model(Path("mine")) == Path("mine")


def test_the_environment_variable_comes_before_the_installed_model(package, monkeypatch):
    (package / "shipped").mkdir(parents=True)
    monkeypatch.setenv("CAPTIONING_MODEL", "of_the_environment")
    assert find_model() == Path("of_the_environment")


def test_the_installed_model_comes_before_the_one_in_the_checkout(package):
    assert find_model() == package.parent
    (package / "shipped").mkdir(parents=True)
    assert find_model() == package / "shipped"


def test_the_checkout_contains_a_model():
    shipped = Paths(find_model())
    assert shipped.vocabulary.is_file()
    assert (shipped.models / "encoder.xml").is_file()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home folder of a user whose environment names no folder for caches."""
    for variable in ("CAPTIONING_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("platform", "folder"),
    [("linux", ".cache/captioning"), ("darwin", "Library/Caches/captioning"), ("win32", None)],
)
def test_the_model_cache_is_in_the_cache_folder_of_the_user(platform, folder, home, monkeypatch):
    monkeypatch.setattr(module.sys, "platform", platform)
    assert find_cache() == (home / folder if folder else None)


@pytest.mark.parametrize(
    ("platform", "variable"), [("linux", "XDG_CACHE_HOME"), ("win32", "LOCALAPPDATA")]
)
def test_the_system_names_the_cache_folder_of_the_user(platform, variable, home, monkeypatch):
    monkeypatch.setattr(module.sys, "platform", platform)
    monkeypatch.setenv(variable, str(home / "of_the_system"))
    assert find_cache() == home / "of_the_system" / "captioning"
    monkeypatch.setenv(variable, "relative")  # would be another folder after each change of folder
    assert find_cache() is None


def test_the_environment_names_the_model_cache_or_switches_it_off(home, monkeypatch):
    monkeypatch.setenv("CAPTIONING_CACHE", str(home / "mine"))
    assert find_cache() == home / "mine"
    monkeypatch.setenv("CAPTIONING_CACHE", "off")
    assert find_cache() is None
