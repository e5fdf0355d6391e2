"""Runs the training notebook from top to bottom in a fresh kernel and saves it with its outputs.

    python tools/run_notebook.py --set source='Path("archives")'

Outputs of cells tagged `flickr8k` show pictures or captions that are not ours to redistribute: they
are not saved. Parameters are set for this run only.
"""

import argparse
import base64
import copy
import sys
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from captioning.files import write_atomically  # noqa: E402

NOTEBOOK = ROOT / "Training_caption_generator.ipynb"


def run(notebook: nbformat.NotebookNode, parameters: dict[str, str]) -> nbformat.NotebookNode:
    """The notebook with outputs. `parameters` maps names of the cell tagged `parameters` to the
    expressions that they are set to. Raises CellExecutionError where a cell does."""
    notebook = copy.deepcopy(notebook)
    (cell,) = [each for each in notebook.cells if "parameters" in tags(each)]
    written = cell.source
    lines = [written, *(f"{name} = {value}" for name, value in parameters.items())]
    cell.source = "\n".join(lines)
    client = NotebookClient(
        notebook, timeout=None, coalesce_streams=True, resources={"metadata": {"path": str(ROOT)}}
    )
    client.execute()
    cell.source = written
    return notebook


def withhold(notebook: nbformat.NotebookNode) -> None:
    """Removes what is not to be published: outputs of tagged cells, the times of the run, and
    progress bars and logs (stderr), which tell of the machine. Photographs become JPEG."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            shown = [] if "flickr8k" in tags(cell) else cell.outputs
            cell.outputs = [output for output in shown if output.get("name") != "stderr"]
            for output in cell.outputs:
                _compress(output.get("data", {}))


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def _compress(data: dict) -> None:
    """Replaces a PNG picture by a JPEG one where that is less than half as large."""
    if "image/png" not in data:
        return
    png = base64.b64decode(data["image/png"])
    jpeg = BytesIO()
    with Image.open(BytesIO(png)) as image:
        image.convert("RGB").save(jpeg, "JPEG", quality=85)
    if 2 * len(jpeg.getvalue()) < len(png):
        del data["image/png"]
        data["image/jpeg"] = base64.b64encode(jpeg.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=EXPRESSION", help="a parameter"
    )
    parameters = dict(each.split("=", 1) for each in parser.parse_args().set)
    notebook = run(nbformat.read(NOTEBOOK, as_version=4), parameters)
    withhold(notebook)
    with write_atomically(NOTEBOOK, "w") as file:
        nbformat.write(notebook, file)


if __name__ == "__main__":
    main()
