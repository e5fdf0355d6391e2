"""Memory and time of the command `caption`, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bombs import BOMBS, MAX_BYTES, encoded, make

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="it does not tell the memory of a process"),
]


def caption(*paths):
    """The result of the command: see `tests.bombs.Result`. A small process starts it, since Linux
    counts the memory of a parent as that of its child."""
    command = [sys.executable, "-m", "tests.bombs", *map(str, paths)]
    return json.loads(subprocess.run(command, capture_output=True, cwd=ROOT, check=True).stdout)


@pytest.mark.parametrize("name", BOMBS)
def test_no_file_takes_more_than_1_gb_and_10_seconds(tmp_path, name):
    if name.startswith("HEIC"):
        pytest.importorskip("pillow_heif")
    make(name, tmp_path / "bomb.jpg")
    result = caption(tmp_path / "bomb.jpg")
    assert result["end"] in ("captioned", "refused")
    assert result["peak"] <= MAX_BYTES
    assert result["seconds"] <= 10


def test_two_large_images_side_by_side_take_no_more_than_one(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        path.write_bytes(encoded("PNG", (8192, 8192), "RGBA", turned=True))
    one, both = caption(paths[0]), caption(*paths)
    assert one["end"] == both["end"] == "captioned"
    assert both["peak"] < one["peak"] + 100e6


def test_a_thousand_failures_take_no_more_memory_than_twenty(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype="uint8")
    Image.fromarray(noise).save(tmp_path / "whole.png", compress_level=0)
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[:-100_000])  # 4 MB when it fails
    names = [tmp_path / f"{number}.png" for number in range(1000)]
    for name in names:
        os.link(tmp_path / "cut.png", name)
    few, many = caption(*names[:20]), caption(*names)
    assert few["end"] == many["end"] == "refused"
    assert many["peak"] < few["peak"] + 30e6
