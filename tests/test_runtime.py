import subprocess
import sys

WATCHED = """
import subprocess, sys, multiprocessing.process
def refuse(*_, **__):
    raise AssertionError("a process was started")
subprocess.Popen.__init__ = multiprocessing.process.BaseProcess.start = refuse
import captioning.captioner, captioning.runtime
sent = [name for name in sys.modules if name.startswith("openvino_telemetry") and sys.modules[name]]
assert not sent, sent
print(captioning.runtime.openvino.__name__)
"""


def test_to_import_the_captioner_tells_nobody():
    """OpenVINO alone would import its telemetry and start a process that reports over the net."""
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True)
    assert done.stdout == "openvino\n", done.stderr
