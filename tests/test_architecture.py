"""The rules of the house: who may import whom, how large a module is, and what an import leaves."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "captioning"
FOLDERS = ("app", "output", "training", "export", "evaluation", "inference", "models", "data")
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

# Modules of more than 250 or fewer than 25 lines, with the reason.
LARGE: dict[str, str] = {}
SMALL = {
    "__main__.py": "it only starts the command line",
}
# Modules that raise a ValueError for a mistake of the code that calls them.
CALLED_BY_CODE = ("files.py", "inference/beam_search.py")


def test_the_folders_are_those_of_the_plan():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(FOLDERS)


def test_a_folder_imports_only_from_the_folders_below_it():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


def test_captioning_and_scoring_name_no_keras():
    """Also not lazily, inside a function, where the contract would see it, but nobody reads."""
    for folder in ("inference", "data", "evaluation", "output"):
        for path in (PACKAGE / folder).glob("*.py"):
            imported = {name.partition(".")[0] for name in imports_of(path)}
            assert imported.isdisjoint({"keras", "tensorflow", "jax"}), path


def test_models_and_training_are_plain_keras():
    """They run with any backend of Keras. One module imports the backends."""
    for folder in ("models", "training"):
        for path in (PACKAGE / folder).glob("*.py"):
            imported = {name.partition(".")[0] for name in imports_of(path)}
            assert imported.isdisjoint({"jax", "tensorflow"}) or path.name == "devices.py", path


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_says_what_it_is_for_and_does_nothing_when_imported(folder):
    tree = ast.parse((PACKAGE / folder / "__init__.py").read_text(encoding="utf-8"))
    assert len(ast.get_docstring(tree) or "") > 80
    assert len(tree.body) == 1


@pytest.mark.parametrize("module", MODULES)
def test_a_module_begins_with_a_docstring_and_has_a_readable_size(module):
    text = (PACKAGE / module).read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    if Path(module).name == "__init__.py":
        return
    lines = len(text.splitlines())
    assert (lines > 250) == (module in LARGE), lines
    assert (lines < 25) == (module in SMALL), lines


@pytest.mark.parametrize("module", [name for name in MODULES if name not in CALLED_BY_CODE])
def test_an_error_that_the_user_can_mend_is_a_user_error(module):
    """The commands print it in one line. A ValueError of this form would keep its traceback."""
    text = (PACKAGE / module).read_text(encoding="utf-8")
    calls = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ValueError"
    ]
    assert [call for call in calls if "Expected " in call] == []


def test_the_tests_mirror_the_folders():
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders == set(FOLDERS)


@pytest.mark.parametrize("command", [("check",), ("format", "--check")])
def test_the_code_is_formatted_and_free_of_known_mistakes(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


# Prints the state of the process that all its code shares, before and after the imports.
STATE = """
import json, locale, logging, os, signal, sys, threading, warnings

def state():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "logging": [str(logging.root.handlers), logging.root.level, logging.root.manager.disable],
        "path": sys.path,
        "recursion": sys.getrecursionlimit(),
        "signals": [str(signal.getsignal(number)) for number in signal.valid_signals()],
        "streams": [repr(sys.stdin), repr(sys.stdout), repr(sys.stderr)],
        "stand-ins": [name for name, module in sys.modules.items() if module is None],
        "threads": [str(thread) for thread in threading.enumerate()],
        "warnings": [str(warning) for warning in warnings.filters],
    }

%s
before = state()
%s
after = state()
print(json.dumps([name for name in before if before[name] != after[name]]))
"""


def changed_by(importing, beforehand=""):
    done = subprocess.run(
        [sys.executable, "-c", STATE % (beforehand, importing)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        timeout=300,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_library_leaves_the_program_that_imports_it_as_it_was():
    assert changed_by("import captioning") == []
    assert changed_by("import captioning.app.cli, captioning.app.caption_command") == []
    importing = "from captioning import Caption, Captioner, SearchSettings, load"
    assert changed_by(importing, "import numpy, openvino, PIL.Image") == []


@pytest.mark.slow
def test_importing_every_module_leaves_the_program_that_imports_it_as_it_was():
    names = [f"captioning/{module}"[:-3].replace("/", ".") for module in MODULES]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    packages = "gradio jinja2 keras matplotlib.pyplot nncf numpy openvino PIL.Image pycocoevalcap"
    packages += " pyarrow.dataset pyexiv2 scipy tensorflow tqdm"  # each may change what it likes
    importing, beforehand = (
        "\n".join(f"import {name}" for name in some) for some in (names, packages.split())
    )
    assert changed_by(importing, beforehand) == []


def imports_of(path):
    """The full names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
