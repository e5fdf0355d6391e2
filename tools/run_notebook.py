"""Runs a notebook from top to bottom in a fresh kernel and saves it with its outputs.

    python tools/run_notebook.py Training_caption_generator.ipynb --set archives='Path("archives")'

`--set` overrides a parameter of the cell tagged `parameters`, for this run only. Only the last line
of a progress bar is saved. Output to stderr is not saved, because it depends on the machine.
"""

import argparse
import base64
import copy
import re
import sys
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from captioning.files import write_atomically  # noqa: E402

_MAX_WIDTH = 1200  # pixels; wider than a notebook on the screen
_ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def run(notebook: nbformat.NotebookNode, parameters: dict[str, str]) -> nbformat.NotebookNode:
    """Returns a copy of the notebook with its outputs.

    `parameters`: names in the cell tagged `parameters` -> Python expressions. Raises ValueError for
    an unknown name and CellExecutionError if a cell fails.
    """
    notebook = copy.deepcopy(notebook)
    (cell,) = [cell for cell in notebook.cells if "parameters" in tags(cell)]
    source = cell.source
    for name in parameters:
        if not re.search(rf"\b{name}\b.* = ", source):
            raise ValueError(
                f"Expected a parameter of the notebook, got {name}. Read its first cells."
            )
    overrides = [f"{name} = {expression}" for name, expression in parameters.items()]
    cell.source = "\n".join([source, *overrides])
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    cell.source = source
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Removes stderr, the times of cells and all but the last line of progress bars, and converts
    photographs to JPEG."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _join_streams(
                [output for output in cell.outputs if output.get("name") != "stderr"]
            )
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.text = _strip_overwritten(output.text)
                _compress(output.get("data", {}))


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def _join_streams(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Joins consecutive printed texts into one output."""
    joined = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _strip_overwritten(text: str) -> str:
    """The text as a terminal shows it in the end, without colours: text before a carriage return or
    backspaces is overwritten."""
    lines = _ANSI_COLOUR.sub("", text).split("\n")
    return "\n".join(re.split(r"\x08+\r?|\r", line.rstrip("\r\x08"))[-1] for line in lines)


def _compress(data: dict) -> None:
    """Replaces a PNG image by a JPEG image of at most `_MAX_WIDTH` pixels in width if that takes
    less than half the bytes, as it does for photographs, but not for drawings."""
    if "image/png" not in data:
        return
    png = base64.b64decode(data["image/png"])
    jpeg = BytesIO()
    with Image.open(BytesIO(png)) as image:
        image.thumbnail((_MAX_WIDTH, image.height))
        image.convert("RGB").save(jpeg, "JPEG", quality=80)
    if 2 * len(jpeg.getvalue()) < len(png):
        del data["image/png"]
        data["image/jpeg"] = base64.b64encode(jpeg.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path, help="the file to run and overwrite")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=EXPRESSION", help="a parameter"
    )
    options = parser.parse_args()
    parameters = dict(assignment.split("=", 1) for assignment in options.set)
    notebook = run(nbformat.read(options.notebook, as_version=4), parameters)
    tidy(notebook)
    with write_atomically(options.notebook, "w") as file:
        nbformat.write(notebook, file)


if __name__ == "__main__":
    main()
