"""The memory that training takes with many captions, as `tools/measure_training.py` measures it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "measure_training.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the tool reads the memory from Linux"),
]


def measure(measurement):
    """Runs the tool. Returns title -> bytes a caption."""
    done = subprocess.run(
        [sys.executable, TOOL, measurement, "50000"], check=True, capture_output=True, text=True
    )
    lines = re.findall(r"^(.+): .* (\d+) bytes a caption$", done.stdout, re.MULTILINE)
    return {title: int(number) for title, number in lines}


def test_rewards_take_at_most_600_bytes_a_caption():
    assert 100 < measure("rewards")["rewards"] < 600


def test_captions_take_at_most_a_kilobyte_each_when_training_starts():
    measured = measure("start")
    assert 100 < measured["captions read"] <= measured["encoded"] < 1000
    assert "first batch with rewards" in measured
