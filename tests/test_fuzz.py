"""A part of the fuzz command, and that it notices what must not happen. See tests/fuzz."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fuzz.__main__ import run_cases
from tests.fuzz.damage import FORMATS, damage_bytes, damage_json, damage_text, whole_images
from tests.fuzz.routes import judge

ROOT = Path(__file__).parents[1]
# Pillow passes their content to handlers that programs bring along.
WITHOUT_ENCODER = {"BUFR", "GRIB", "HDF5", "WMF"}


@pytest.mark.slow
def test_damaged_files_end_in_a_result_or_in_an_error_that_names_them():
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--cases", "240", "--seed", "7"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results, named_errors = re.search(r" all +(\d+) +(\d+)\n", done.stdout).groups()
    assert int(results) + int(named_errors) == 240
    assert int(results) > 50 and int(named_errors) > 50


def test_images_are_damaged_in_every_format_that_pillow_writes():
    Image.init()
    assert Image.SAVE.keys() - WITHOUT_ENCODER - FORMATS.keys() == set()
    assert len({ending for ending, _ in whole_images()}) > 20


def test_the_damage_depends_on_the_seed_alone():
    content = b'{"words": ["a", "dog"], "number": 3}' * 10
    text, other = content[:36], b"other"
    for damage in (damage_bytes, damage_text, damage_json):
        first, second, third = (
            [damage(np.random.default_rng([seed, case]), text, other) for case in range(50)]
            for seed in (1, 1, 2)
        )
        assert first == second != third


@pytest.mark.parametrize(
    ("message", "end"),
    [
        ("Expected a, got b in case-1.jpg. Do this.\n", "named error"),
        ("Expected a, got b. Do this.\n", "other message"),
        ("case-1.jpg: a\ncase-1.jpg: b\n", "other message"),
        ("", "other message"),
    ],
)
def test_a_named_error_is_one_line_with_the_name_of_the_file(message, end):
    assert judge("case-1.jpg", message)[0] == end


def test_a_process_that_dies_is_counted_and_the_next_cases_run(tmp_path, monkeypatch):
    worker = """
import json, os, sys
print("ready", flush=True)
for line in sys.stdin:
    if line == "3\\n":
        os._exit(7)
    print(json.dumps({"number": int(line), "end": "result", "seconds": 12, "bytes": 0}), flush=True)
"""
    (tmp_path / "python").write_text(f"#!{sys.executable}\n{worker}")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    ends = [(case["number"], case["end"]) for case in run_cases("images", 0, [1, 3, 5], tmp_path)]
    assert ends == [(1, "more than 10 s"), (3, "crash or hang"), (5, "more than 10 s")]
