"""The files of networks: replacing them, shown by stand-ins of text, and refusing files that fit
neither each other nor this package."""

import re
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from captioning.inference.captioner import Captioner
from captioning.inference.network_files import (
    DECODER_PREFILL,
    DECODER_STEP,
    ENCODER,
    copy_network,
    network_exists,
    read_network_files,
    replace_networks,
)

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
DECODER = (DECODER_PREFILL, DECODER_STEP)
NEW = {
    "decoder_prefill.xml": "new decoder_prefill.xml",
    "decoder_prefill.bin": "new decoder_prefill.bin",
    "decoder_step.xml": "new decoder_step.xml",
    "decoder_step.bin": "new decoder_step.bin",
}


def write(folder, age, names=DECODER):
    for name in names:
        for path in (folder / name, (folder / name).with_suffix(".bin")):
            path.write_text(f"{age} {path.name}")


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def replace(folder):
    with replace_networks(folder) as new_folder:
        (new_folder / "maps.bin").write_text("not a network")
        write(new_folder, "new")


def test_new_networks_replace_the_old_ones_and_leave_other_files_alone(tmp_path):
    write(tmp_path, "old", [*DECODER, ENCODER])
    (tmp_path / "README.md").write_text("other")
    others = {"encoder.xml": "old encoder.xml", "encoder.bin": "old encoder.bin"}
    replace(tmp_path)
    assert contents(tmp_path) == NEW | others | {"README.md": "other"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_old_networks_stay_if_writing_the_new_ones_fails(tmp_path, error):
    write(tmp_path, "old")
    old = contents(tmp_path)
    with pytest.raises(error), replace_networks(tmp_path) as new_folder:
        write(new_folder, "new", [DECODER_STEP])
        raise error
    assert contents(tmp_path) == old


KILLED = """
import os, sys
from pathlib import Path
sys.path += [{tests!r}]
from test_network_files import replace

events = 0

def kill(event, arguments):
    global events
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
        if {folder!r} in str(arguments):
            events += 1
            if events > {number}:
                os._exit(9)  # as abrupt as SIGKILL

sys.addaudithook(kill)
replace(Path({folder!r}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("age", ["old", None])
def test_a_run_that_is_killed_anywhere_leaves_all_networks_old_or_all_new(tmp_path, age):
    """Killed before the first operation on a file, before the second, and so on."""
    all_ages = []
    for number in count():
        folder = tmp_path / str(number)
        folder.mkdir()
        if age:
            write(folder, age)
        code = KILLED.format(tests=str(Path(__file__).parent), folder=str(folder), number=number)
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60)
        ages = set()
        for name in DECODER:
            found = network_exists(folder / name)
            files = read_network_files(folder / name) if found else ()
            ages |= {content.decode().split()[0] for content in files} or {None}
        all_ages.append(ages)
        replace(folder)
        assert contents(folder) == NEW
        if done.returncode == 0:
            break
        assert done.returncode == 9
    assert number > 10
    assert all(ages in ({age}, {"new"}) for ages in all_ages)
    assert all_ages[0] == {age} and all_ages[-1] == {"new"}


def test_where_the_folder_cannot_be_written_the_new_networks_are_read(tmp_path, monkeypatch):
    """A run was killed between the two files of the network."""
    write(tmp_path, "old")
    (tmp_path / ".new-networks").mkdir()
    (tmp_path / ".new-networks" / DECODER_STEP).write_text("new xml")
    (tmp_path / "decoder_step.bin").write_text("new weights")

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(Path, "replace", refuse)
    assert read_network_files(tmp_path / DECODER_STEP) == (b"new xml", b"new weights")
    copy_network(tmp_path / DECODER_STEP, tmp_path / "copy.xml")
    assert (tmp_path / "copy.xml").read_text() == "new xml"
    assert (tmp_path / "copy.bin").read_text() == "new weights"


def test_a_missing_network_and_missing_weights_are_named(tmp_path):
    assert not network_exists(tmp_path / ENCODER)
    with pytest.raises(FileNotFoundError, match="There is no .*encoder.xml"):
        read_network_files(tmp_path / ENCODER)
    (tmp_path / ENCODER).touch()
    with pytest.raises(ValueError, match="Expected a network in .*encoder.xml and in the .bin"):
        read_network_files(tmp_path / ENCODER)


@pytest.fixture
def model(tmp_path):
    """A folder with the shipped model, to be damaged."""
    (tmp_path / "models").mkdir()
    shutil.copy(ROOT / "tokenizer.p", tmp_path)
    for path in (path for pattern in ("*.xml", "*.bin") for path in MODELS.glob(pattern)):
        shutil.copy(path, tmp_path / "models")
    return tmp_path


def edit(model, name, pattern, new):
    """Replaces a pattern, which must occur, in a network file."""
    path = model / "models" / name
    text, replaced = re.subn(pattern, new, path.read_text(encoding="utf-8"))
    assert replaced
    path.write_text(text, encoding="utf-8")


def refused(model, match):
    with pytest.raises(ValueError, match=match):
        Captioner.load(model, cache=False).caption(ROOT / "examples" / "cat.jpg")


@pytest.mark.parametrize(
    "value",
    ["0", "-1", "99999999999", "9" * 5000, "0000000001000000000", "many", "", "512.0", "٣"],
)
@pytest.mark.parametrize("name", ["units", "longest_caption", "feature_width"])
def test_absurd_numbers_in_the_metadata_are_refused(model, name, value):
    for file in ("decoder_prefill.xml", "decoder_step.xml"):
        edit(model, file, rf'<{name} value="\d+" />', f'<{name} value="{value}" />')
    limit = {"units": "65,536", "longest_caption": "1,000", "feature_width": "65,536"}[name]
    refused(model, f"Expected {name} from 1 to {limit} in the metadata of .*decoder_step.xml")


@pytest.mark.parametrize(
    ("name", "network"), [("units", "decoder_step"), ("feature_width", "decoder_prefill")]
)
def test_numbers_that_do_not_fit_the_network_are_refused(model, name, network):
    for file in ("decoder_prefill.xml", "decoder_step.xml"):
        edit(model, file, rf'<{name} value="\d+" />', f'<{name} value="300" />')
    refused(model, rf"Expected a network of the shapes .*300\b.* in .*{network}.xml, got")


@pytest.mark.parametrize("other", ["decoder_step", "decoder_prefill"])
def test_another_network_in_the_place_of_the_encoder_is_refused(model, other):
    for ending in (".xml", ".bin"):
        shutil.copy(MODELS / f"{other}{ending}", model / "models" / f"encoder{ending}")
    refused(model, r"Expected a network of the shapes \[\?,\?,\?,3\] in .*encoder.xml")


@pytest.mark.parametrize("side", ["0", "99999", "-1"])
def test_an_encoder_of_absurd_images_is_refused(model, side):
    edit(model, "encoder.xml", 'shape="[?],299,299,3"', f'shape="?,{side},{side},3"')
    refused(model, "encoder.xml")


@pytest.mark.parametrize("name", ["encoder", "decoder_prefill", "decoder_step"])
@pytest.mark.parametrize("ending", [".xml", ".bin"])
def test_half_a_network_is_refused(model, name, ending):
    path = model / "models" / f"{name}{ending}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(model, f"Expected a network in .*{name}.xml and in the .bin file")


def test_bytes_that_are_no_text_in_a_network_are_refused(model):
    """OpenVINO quotes them in its message, which Python then cannot decode."""
    path = model / "models" / "decoder_prefill.xml"
    path.write_bytes(path.read_bytes().replace(b'version="opset1"', b'version="\x95opset1"'))
    refused(model, "Expected a network in .*decoder_prefill.xml and in the .bin file")
