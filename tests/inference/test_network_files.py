"""Replacing the files of networks, by stand-ins of text."""

import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

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
