import subprocess
import sys

WATCHED = """
import subprocess, sys, multiprocessing.process
def refuse(*_, **__):
    raise AssertionError("a process was started")
subprocess.Popen.__init__ = multiprocessing.process.BaseProcess.start = refuse
import captioning.inference.captioner, captioning.inference.runtime
sent = [name for name in sys.modules if name.startswith("openvino_telemetry") and sys.modules[name]]
assert not sent, sent
print(captioning.inference.runtime.openvino.__name__)
"""


def said(code):
    """What a fresh Python prints that runs `code` to its end."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_to_import_the_captioner_tells_nobody():
    """OpenVINO alone would import its telemetry and start a process that reports over the net."""
    assert said(WATCHED) == "openvino\n"


def test_the_converter_is_imported_when_it_is_asked_for():
    """Captioning converts nothing. Keras asks OpenVINO for `convert_model` when it exports."""
    code = (
        "import sys, captioning.inference.runtime, openvino\n"
        "print('openvino.tools.ovc' in sys.modules, hasattr(openvino, 'no_such_thing'))\n"
        "print(openvino.convert_model.__module__.startswith('openvino.tools.ovc'))\n"
        "import openvino.tools.ovc"
    )
    assert said(code) == "False False\nTrue\n"


def test_openvino_that_was_imported_before_stays_whole():
    code = (
        "import sys; sys.modules['openvino_telemetry'] = None\n"
        "import openvino; before = openvino.convert_model\n"
        "import captioning.inference.runtime\n"
        "print(openvino.convert_model is before, 'openvino.tools.ovc' in sys.modules)"
    )
    assert said(code) == "True True\n"
