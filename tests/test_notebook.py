"""The notebook, executed from top to bottom on the tiny world, and as it is committed."""

import copy
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import build_tiny_encoder
from tiny_world import write_archives, write_folder

from captioning.export.keras_to_openvino import export_encoder
from captioning.paths import Paths

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))

from run_notebook import NOTEBOOK, run, tags, withhold  # noqa: E402

COMMITTED = nbformat.read(NOTEBOOK, as_version=4)


def outputs_of(cell):
    """Printed text and the kinds of everything else that a cell shows."""
    text = "".join(output.get("text", "") for output in cell.outputs)
    kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
    return text, kinds


@pytest.fixture(scope="module")
def executed(tmp_path_factory, tiny_settings):
    root = tmp_path_factory.mktemp("root")
    archives = tmp_path_factory.mktemp("archives")
    write_archives(archives)
    export_encoder(build_tiny_encoder(), Paths(root).models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(root))  # where there is neither Graphviz nor Java
        notebook = run(
            COMMITTED,
            {
                "source": f"Path({str(archives)!r})",
                "files": f"Paths(Path({str(root)!r}))",
                "settings": repr(tiny_settings),
            },
        )
    return notebook, root


def test_it_runs_from_top_to_bottom_and_every_step_leaves_its_file(executed):
    _, root = executed
    for name in ("descriptions.txt", "features.p", "tokenizer.p"):
        assert (root / name).stat().st_size > 0
    left = {path.name for path in (root / "models").iterdir()}
    assert {"caption_model.keras", "training.json", "decoder_step.xml", "scores.json"} <= left
    assert json.loads((root / "models" / "scores.json").read_text())["CIDEr"] > 1


def test_its_first_cell_is_the_place_to_name_ones_own_images(tmp_path):
    export_encoder(build_tiny_encoder(), Paths(tmp_path / "my_run").models)
    write_folder(tmp_path)
    notebook = copy.deepcopy(COMMITTED)
    (end,) = [n for n, cell in enumerate(notebook.cells) if "of_splits" in cell.source]
    del notebook.cells[end + 1 :]
    executed = run(
        notebook,
        {
            "caption_files": f"[Path({str(tmp_path / 'my_captions.csv')!r})]",
            "image_folder": f"Path({str(tmp_path / 'my_photos')!r})",
            "files": f"Paths(Path({str(tmp_path / 'my_run')!r}))",
        },
    )
    text = "".join(outputs_of(cell)[0] for cell in executed.cells if cell.cell_type == "code")
    assert "30 captions of 20 images" in text
    assert "20 images: " in text
    splits = re.findall(r"(?m)^(train|development|test) +(\d+) images", text)
    assert sum(int(count) for _, count in splits) == 20


def test_without_graphviz_it_goes_on_and_says_so(executed):
    notebook, root = executed
    (cell,) = [cell for cell in notebook.cells if "plot_model" in cell.source]
    assert "The network was not drawn" in str(cell.outputs[-1].data)
    assert "graphviz" in str(cell.outputs[-1].data)
    assert not (root / "model.png").exists()


def test_every_code_cell_shows_something(executed):
    notebook, _ = executed
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [tags(cell) for cell in code if not cell.outputs] == [["parameters"]]


def test_running_it_changes_nothing_but_outputs(executed):
    notebook, _ = executed
    assert [cell.source for cell in notebook.cells] == [cell.source for cell in COMMITTED.cells]


def test_what_is_not_ours_is_withheld(executed):
    notebook = copy.deepcopy(executed[0])
    shown = [cell for cell in notebook.cells if "flickr8k" in tags(cell)]
    assert len(shown) == 2
    assert all(outputs_of(cell)[1] & {"image/png"} for cell in shown)
    withhold(notebook)
    assert all(cell.outputs == [] for cell in shown)


def test_it_is_committed_as_it_ran_in_a_fresh_kernel():
    code = [cell for cell in COMMITTED.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert bool(cell.outputs) == (not tags(cell)), cell.source
        assert all(output.output_type != "error" for output in cell.outputs)


def test_it_is_small_and_holds_no_path_of_the_machine_it_ran_on():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 1_500_000
    assert not re.search(r"[\"' ](/home|/root|/tmp|/work|/Users|[A-Z]:\\\\)", text)


def test_its_code_cells_are_short():
    lengths = [
        len(cell.source.splitlines()) for cell in COMMITTED.cells if cell.cell_type == "code"
    ]
    assert max(lengths) <= 20


@pytest.mark.skipif(shutil.which("dot") is None, reason="drawing the network needs Graphviz")
def test_with_graphviz_the_network_is_drawn(tmp_path):
    import keras

    from captioning.models.caption_model import build_caption_model
    from captioning.settings import TrainingSettings

    model = build_caption_model(20, 5, TrainingSettings())
    keras.utils.plot_model(model, tmp_path / "model.png", show_shapes=True)
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")
