"""The package that pip installs: requirements, wheel, and the wheel in a fresh environment."""

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from captioning.paths import Paths

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PHOTO = ROOT / "examples" / "cat.jpg"


def run(*command, folder, check=True):
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, cwd=folder, check=check, timeout=900
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT,
        folder=folder)  # fmt: skip
    (path,) = folder.glob("captioning-*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """The folder of programs of a fresh virtual environment in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if sys.platform == "win32" else "bin")
    done = run(programs / "pip", "install", wheel, folder=folder, check=False)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("needs a package index: pip found none")
    assert done.returncode == 0, done.stderr
    return programs


def test_the_requirements_file_lists_the_core_and_all_extras():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    requirements = set(PROJECT["dependencies"]).union(*EXTRAS.values())
    assert [line for line in lines if not line.startswith("#")] == sorted(
        requirement for requirement in requirements if not requirement.startswith("captioning[")
    )


def test_the_lock_file_has_one_allowed_version_of_every_requirement():
    """To mend it, write it anew: see CONTRIBUTING.md."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text  # any package index will do
    locked = [Requirement(line) for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"==[^*]+", str(requirement.specifier)) for requirement in locked)
    versions = {
        requirement.name: str(requirement.specifier).removeprefix("==")
        for requirement in locked
        if requirement.marker is None or requirement.marker.evaluate()
    }
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            assert versions[requirement.name] in requirement.specifier, line


def test_the_extra_all_names_all_other_extras():
    (requirement,) = EXTRAS["all"]
    names = re.fullmatch(r"captioning\[(.*)\]", requirement)[1].split(",")
    assert sorted(names) == sorted(EXTRAS.keys() - {"all"})
    expected = {"metadata", "heif", "plots", "demo", "train", "jax", "quantise", "parquet", "scale"}
    assert {*names} == expected | {"test"}


@pytest.mark.parametrize(("package", "extra"), [("pyexiv2", "metadata"), ("pillow-heif", "heif")])
def test_a_package_under_the_gpl_is_installed_by_its_own_extra_only(package, extra):
    (requirement,) = EXTRAS[extra]
    assert requirement.startswith(package)
    requirements = sum(EXTRAS.values(), PROJECT["dependencies"])
    assert [line for line in requirements if package in line] == [requirement]


def test_the_wheel_holds_the_model_and_no_training_files_in_less_than_40_mb(wheel):
    assert wheel.stat().st_size < 40e6
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    shipped = {
        name.removeprefix("captioning/shipped/"): content
        for name, content in files.items()
        if name.startswith("captioning/shipped/")
    }
    models = {name for name in shipped if name.startswith("models/")}
    networks = ("encoder", "decoder_prefill", "decoder_step")
    assert models == {"models/README.md", "models/confidence.json"} | {
        f"models/{network}.{ending}" for network in networks for ending in ("xml", "bin")
    }
    examples = {f"examples/{path.name}" for path in (ROOT / "examples").iterdir()}
    assert shipped.keys() - models == examples | {"tokenizer.p"}
    for name, content in shipped.items():
        assert content == (ROOT / name).read_bytes()
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "captioning").rglob("*.*")}
    sources = {name for name in sources if "__pycache__" not in name}
    assert {name for name in files if name.startswith("captioning/")} == sources | {
        f"captioning/shipped/{name}" for name in shipped
    }


@pytest.mark.slow
def test_in_an_empty_folder_the_installed_command_and_library_caption_a_photograph(
    environment, tmp_path
):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(PHOTO.read_bytes())
    done = run(environment / "caption", "photo.jpg", folder=tmp_path)
    assert done.stderr == ""
    code = "import captioning; print(captioning.load().caption('photo.jpg'))"
    assert run(environment / "python", "-c", code, folder=tmp_path).stdout == done.stdout
    code = "import captioning; print(captioning.load().caption('examples/cat.jpg'))"
    assert run(sys.executable, "-c", code, folder=ROOT).stdout == done.stdout
    steps = run(environment / "captioning", "--help", folder=tmp_path).stdout
    assert (
        steps == run(environment / "python", "-m", "captioning", "--help", folder=tmp_path).stdout
    )
    assert "fine-tune" in steps
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.slow
def test_a_step_of_the_pipeline_names_the_extra_that_it_needs(environment, tmp_path):
    (tmp_path / "models").mkdir()
    done = run(environment / "captioning", "export", folder=tmp_path, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, line.split()[-1]) == (1, '".[train]"')
    manifest = ("manifest", "photos", "photos.parquet")
    done = run(environment / "captioning", *manifest, folder=tmp_path, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, line.split()[-1]) == (1, '".[parquet]"')


@pytest.mark.slow
def test_the_features_of_a_new_folder_are_those_of_the_shipped_encoder(environment, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = ["image,caption"]
    for number, path in enumerate(sorted((ROOT / "examples").glob("*.jpg"))[:5]):
        (photos / f"{number}.jpg").write_bytes(path.read_bytes())
        rows.append(f"{number}.jpg,one photograph of several")
    (tmp_path / "captions.csv").write_text("\n".join(rows), encoding="utf-8")
    run(environment / "captioning", "check", "--captions", "captions.csv", "--images", "photos",
        folder=tmp_path)  # fmt: skip
    run(environment / "captioning", "features", "--pooled", folder=tmp_path)
    encoder = Paths(tmp_path).models / "encoder.bin"
    assert encoder.read_bytes() == (ROOT / "models" / "encoder.bin").read_bytes()
    assert Paths(tmp_path).features.exists()


@pytest.mark.slow
def test_an_editable_installation_uses_the_model_of_the_clone(environment, tmp_path):
    run(environment / "pip", "uninstall", "--yes", "captioning", folder=tmp_path)
    run(environment / "pip", "install", "--no-deps", "--editable", ROOT, folder=tmp_path)
    code = "import captioning; print(captioning.__file__)"
    path = run(environment / "python", "-c", code, folder=tmp_path).stdout.strip()
    assert Path(path) == ROOT / "captioning" / "__init__.py"
    assert run(environment / "caption", PHOTO, folder=tmp_path).stdout.count("\n") == 1
