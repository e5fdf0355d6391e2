import platform
import subprocess
import sys

import pytest

# What TensorFlow tells the C library, then arrays of 8 MB made and freed: pages asked for.
PAGES = """
import ctypes, resource, numpy as np
from captioning.training.memory import keep_freed_memory
def pages():
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun
ctypes.CDLL(None).mallopt(-1, 128 * 1024)
print(pages())
keep_freed_memory()
np.ones(2**20)
print(pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_memory_that_was_freed_is_not_asked_for_again():
    done = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 10, done.stderr
