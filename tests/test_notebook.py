"""The notebooks: executed on the tiny world, compared with the package, and as committed."""

import ast
import copy
import random
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import keras
import nbformat
import numpy as np
import pytest
from tiny_world import build_tiny_encoder, write_archives, write_folder

from captioning.data.vocabulary import Vocabulary, clean_caption
from captioning.export.keras_to_openvino import export_encoder
from captioning.models.caption_model import build_caption_model
from captioning.paths import Paths
from captioning.settings import TrainingSettings
from captioning.training.batches import Variant
from captioning.training.cross_entropy import make_batches

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))

from run_notebook import run, tags, tidy  # noqa: E402

TRAINING = ROOT / "Training_caption_generator.ipynb"
GOING_FURTHER = ROOT / "Going_further.ipynb"
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in (TRAINING, GOING_FURTHER)}
LESSON = NOTEBOOKS[TRAINING.stem]

SMALL = {
    "xception_weights": "None", "min_word_count": "1", "units": "32", "dropout": "0.0",
    "batch_size": "8", "epochs": "3", "learning_rate": "0.01",
}  # fmt: skip

for_each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS.values(), ids=NOTEBOOKS.keys())


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def output_text(notebook):
    """All text that the cells print or show."""
    return "\n".join(
        output.get("text", "") or str(output.get("data", {}).get("text/plain", ""))
        for cell in code_cells(notebook)
        for output in cell.outputs
    )


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The lesson after a run on the tiny archives, without Graphviz and Java, and the root folder
    of the run."""
    root, archives = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("archives")
    write_archives(archives)
    export_encoder(build_tiny_encoder(), Paths(root).models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(root))
        parameters = {
            "paths": f"Paths(Path({str(root)!r}))",
            "archives": f"Path({str(archives)!r})",
        }
        notebook = run(LESSON, SMALL | parameters)
    return notebook, root


@pytest.mark.slow
def test_the_lesson_runs_from_top_to_bottom_and_trains_a_model(executed):
    notebook, root = executed
    model = keras.models.load_model(root / "classic_model.keras")
    words = (root / "classic_words.txt").read_text(encoding="utf-8").split("\n")
    assert model.output_shape == (None, None, len(words))
    losses = [float(loss) for loss in re.findall(r"val_loss: ([\d.]+)", output_text(notebook))]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_a_run_of_the_lesson_changes_only_outputs(executed):
    notebook, _ = executed
    assert [cell.source for cell in notebook.cells] == [cell.source for cell in LESSON.cells]


@pytest.mark.slow
def test_without_graphviz_the_lesson_names_it_and_continues(executed):
    notebook, root = executed
    (cell,) = [cell for cell in notebook.cells if "plot_model" in cell.source]
    assert "You must install graphviz" in cell.outputs[0].data["text/plain"]
    assert not (root / "model.png").exists()


@pytest.mark.slow
def test_a_tidied_run_holds_neither_stderr_nor_progress_bars(executed):
    notebook = copy.deepcopy(executed[0])
    tidy(notebook)
    assert not re.search(r"[\x08\x1b\r]", output_text(notebook))
    assert all(output.get("name") != "stderr" for c in code_cells(notebook) for output in c.outputs)
    assert len(re.findall(r"(?m)^.*/step.*val_loss.*$", output_text(notebook))) == 3


@pytest.mark.slow
def test_the_lesson_takes_your_own_captions_and_photographs(tmp_path):
    export_encoder(build_tiny_encoder(), Paths(tmp_path / "my_run").models)
    write_folder(tmp_path)
    notebook = copy.deepcopy(LESSON)
    checks = [n for n, cell in enumerate(notebook.cells) if "pipeline.check" in cell.source]
    del notebook.cells[checks[-1] + 1 :]
    executed = run(
        notebook,
        {
            "caption_files": f"[Path({str(tmp_path / 'my_captions.csv')!r})]",
            "image_folder": f"Path({str(tmp_path / 'my_photos')!r})",
            "paths": f"Paths(Path({str(tmp_path / 'my_run')!r}))",
        },
    )
    splits = re.findall(r"(?m)^(train|development|test) +(\d+) images", output_text(executed))
    assert sum(int(count) for _, count in splits) == 20


@pytest.mark.slow
def test_going_further_runs_from_top_to_bottom(tiny_root, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(tiny_root, root)
    notebook = run(NOTEBOOKS[GOING_FURTHER.stem], {"paths": f"Paths(Path({str(root)!r}))"})
    assert "CIDEr" in output_text(notebook)


def test_an_unknown_parameter_is_refused():
    with pytest.raises(ValueError, match="Expected a parameter of the notebook, got colour"):
        run(LESSON, {"colour": "1"})


# The code in the cells, and the code of the package.


@pytest.fixture(scope="module")
def cells():
    """The names that the tagged cells of the lesson define, for captions of the tiny world."""
    colours, forms = ("red", "green", "blue"), ("A {} circle .", "There's a {} square , on white .")
    captions = {f"{c}.jpg": [form.format(c) for form in forms] for c in colours}
    rng = np.random.default_rng(0)
    names = {
        "re": re, "random": random, "keras": keras, "layers": keras.layers, "np": np,
        "Counter": Counter, "min_word_count": 2, "units": 8, "dropout": 0.5, "batch_size": 4,
        "feature_width": 6,
        "features": {name: rng.random(6, dtype="float32") for name in captions},
    }  # fmt: skip
    keras.utils.set_random_seed(0)
    exec(_tagged("clean"), names)
    names["dataset"] = type("Dataset", (), {"splits": {"train": list(captions)}})
    names["captions"] = {
        name: [names["clean"](caption) for caption in image_captions]
        for name, image_captions in captions.items()
    }
    for tag in ("vocabulary", "batches", "model", "step"):
        exec(_tagged(tag), names)
    return names


def _tagged(tag):
    return "\n".join(cell.source for cell in LESSON.cells if tag in tags(cell))


@pytest.fixture(scope="module")
def settings():
    return TrainingSettings(
        decoder="merge", min_word_count=2, embedding_units=8, units=8, batch_size=2
    )


def test_the_lesson_cleans_captions_as_the_package_does(cells):
    for caption in ("A dog's T-shirt , 2 huskies_run .", "“Go!”  she says", "", "don`t stop—now"):
        assert cells["clean"](caption) == clean_caption(caption)


def test_the_lesson_has_the_vocabulary_of_the_package(cells):
    captions = sum(cells["captions"].values(), [])
    vocabulary = Vocabulary.from_captions(captions, min_word_count=2)
    assert cells["words"] == vocabulary.words
    assert cells["to_ids"]("a purple circle") == vocabulary.encode("a purple circle")
    assert cells["to_text"](vocabulary.encode("a circle")) == "a circle"


def test_the_lesson_makes_the_batches_of_the_package(cells, settings):
    vocabulary = Vocabulary(cells["words"][4:])
    encoded = vocabulary.encode_captions(cells["captions"])
    maps = {name: vector[None] for name, vector in cells["features"].items()}
    expected = make_batches([Variant(encoded, maps)], settings)
    batches = cells["CaptionBatches"](list(cells["captions"]))
    assert len(batches) == len(expected) == 2
    assert _sorted_rows(batches) == _sorted_rows(expected)


def _sorted_rows(batches):
    """The rows of all batches: the shape of the batch, then features, words, targets and weights of
    the row, without padding."""
    rows = []
    for inputs, targets, weights in (batches[index] for index in range(len(batches))):
        features = inputs.get("image", inputs.get("features"))
        words = inputs["words"].reshape(len(features), -1)
        targets, weights = (part.reshape(words.shape) for part in (targets, weights))
        for image, *row in zip(features, words, targets, weights, strict=True):
            _, row_targets, row_weights = row
            is_word = row_targets != 0
            assert not row_weights[~is_word].any()
            numbers = np.concatenate([part[is_word] for part in row])
            rows.append((words.shape, *image.ravel(), *numbers))
    return sorted(rows)


def test_the_lesson_has_the_model_of_the_package(cells, settings):
    model = build_caption_model(len(cells["words"]), 6, settings)
    _copy_weights(cells["model"], model)
    image = np.random.default_rng(1).random((3, 6), dtype="float32")
    words = np.array([[1, 4, 6], [1, 5, 0], [1, 4, 4]])
    expected = model.predict({"features": image[:, None], "words": words[:, None]}, verbose=0)
    logits = cells["model"].predict({"image": image, "words": words}, verbose=0)
    np.testing.assert_allclose(logits, expected.reshape(logits.shape), atol=1e-5)


def _copy_weights(source, target):
    """Copies the weights of the lesson's model into the package's, whose parts are models."""
    layers = {
        "embedding": target.get_layer("embedding"),
        "image_dense": target.get_layer("feature_extractor").get_layer("dense"),
        "lstm": target.get_layer("sequence_processor").get_layer("lstm"),
        "decoder_dense": target.get_layer("decoder").get_layer("dense"),
    }
    for name, layer in layers.items():
        layer.set_weights(source.get_layer(name).get_weights())


def test_a_step_of_the_search_reads_one_more_word_than_the_step_before(cells):
    image = np.random.default_rng(2).random((1, 6), dtype="float32")
    words = np.array([[1, 4, 6, 5]])
    logits = cells["model"].predict({"image": image, "words": words}, verbose=0)
    expected = np.array(keras.ops.log_softmax(logits))[0]
    context = (np.array(cells["image_dense"](image)),)
    state = (np.zeros((1, 1, 8), "float32"),) * 2
    for position, word_id in enumerate(words[0]):
        log_probs, state = cells["step"](np.array([[word_id]]), state, context)
        np.testing.assert_allclose(log_probs[0, 0], expected[position], atol=1e-5)


# The notebooks as they are committed.


@for_each_notebook
def test_a_notebook_is_committed_as_it_ran_in_a_fresh_kernel(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@for_each_notebook
def test_every_committed_cell_shows_something_or_only_defines_names(notebook):
    definitions = ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign
    for cell in code_cells(notebook):
        if not cell.outputs and "setup" not in tags(cell):
            assert all(isinstance(node, definitions) for node in ast.parse(cell.source).body), (
                cell.source
            )


@for_each_notebook
def test_committed_outputs_hold_no_errors_warnings_or_local_paths(notebook):
    text = output_text(notebook)
    assert all(o.output_type != "error" for cell in code_cells(notebook) for o in cell.outputs)
    assert not re.search(r"(?i)warning|traceback|[\x08\x1b\r]", text)
    assert not re.search(
        r"[\"' (](/home|/root|/tmp|/work|/Users|[A-Z]:\\)", nbformat.writes(notebook)
    )


def test_the_committed_notebooks_are_small():
    assert sum(path.stat().st_size for path in (TRAINING, GOING_FURTHER)) < 2_000_000


@for_each_notebook
def test_code_cells_are_short(notebook):
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= 15, cell.source


def test_the_committed_lesson_reaches_the_score_that_it_states():
    scores = dict(re.findall(r"(?m)^([\w-]+) +([\d.]+)$", output_text(LESSON)))
    assert float(scores["CIDEr"]) >= 48


def test_the_captions_at_the_top_of_the_lesson_are_those_of_the_committed_run():
    captions = re.findall(r"(?m)^\| (?:before|after).*\| (.+) \|$", LESSON.cells[0].source)
    text = output_text(LESSON)
    assert len(captions) == 3
    for caption in captions:
        assert f": {caption}\n" in text


def test_links_between_the_notebooks_and_the_repository_lead_somewhere():
    for notebook in NOTEBOOKS.values():
        source = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
        for target in re.findall(r"\]\(([^)#:]+)\)", source):
            assert (ROOT / target).exists(), target
        headings = {f"#{h.replace(' ', '-')}" for h in re.findall(r"(?m)^#+ (.+)$", source)}
        assert set(re.findall(r"\]\((#[^)]+)\)", source)) <= headings


@pytest.mark.skipif(shutil.which("dot") is None, reason="drawing the network needs Graphviz")
def test_with_graphviz_keras_draws_the_model(cells, tmp_path):
    keras.utils.plot_model(cells["model"], tmp_path / "model.png", show_shapes=True)
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")
