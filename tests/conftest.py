"""Fixtures that the tests share: the tiny world, trained once per run, and the real data.

Each fixture imports its modules itself, so that tests without Keras start in a second.
"""

import gc
import os
import shutil
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from tiny_world import build_tiny_encoder, make_tiny_data, write_archives

from captioning.paths import Paths
from captioning.settings import TrainingSettings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

SHARED = Path(__file__).parents[2] / "shared"
REAL = ("flickr8k/Flickr8k_Dataset.zip", "flickr8k/Flickr8k_text.zip", "xception/*.h5")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights, for tests marked `real`."""
    return SHARED


def pytest_addoption(parser):
    parser.addoption(
        "--kills", type=int, default=2, help="random moments at which test_kills.py kills each step"
    )


def pytest_collection_modifyitems(items):
    missing = [f"../shared/{name}" for name in REAL if not any(SHARED.glob(name))]
    for item in items:
        if missing and "real" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))


def pytest_collection_finish():
    """What was imported to collect the tests stays: the garbage collector need not look at it after
    each module and each slow test. `gc.get_objects` does not list it either."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def own_model_cache(tmp_path_factory):
    """No test reads or fills the model cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTIONING_CACHE", str(tmp_path_factory.mktemp("model_cache")))
        yield


@pytest.fixture(autouse=True, scope="module")
def forget_models():
    """Keras keeps every model that a test builds until its session is cleared: 4.5 GB in all."""
    yield
    _forget_models()


@pytest.fixture(autouse=True)
def forget_models_of_slow_test(request):
    """A slow test, which may train, leaves up to 100 MB of graphs: see `_dismantle_graphs`."""
    yield
    if request.node.get_closest_marker("slow"):
        _forget_models()


def _forget_models() -> None:
    if keras := sys.modules.get("keras"):
        keras.backend.clear_session()  # also collects garbage
    if "tensorflow" in sys.modules:
        _dismantle_graphs()


def _dismantle_graphs() -> None:
    """Frees the graphs that no function runs. TensorFlow keeps those with a loop and its gradient,
    which refer to each other where Python's garbage collector does not see it."""
    from tensorflow.python.eager.polymorphic_function.concrete_function import ConcreteFunction
    from tensorflow.python.framework.func_graph import FuncGraph, dismantle_func_graph

    objects = gc.get_objects()
    graphs = [graph for graph in objects if issubclass(type(graph), FuncGraph)]
    in_use = {id(run.graph) for run in objects if issubclass(type(run), ConcreteFunction)}
    for graph in graphs:
        outermost = graph
        while isinstance(outermost.outer_graph, FuncGraph):
            outermost = outermost.outer_graph
        if not {id(graph), id(outermost)} & in_use:
            dismantle_func_graph(graph)


@pytest.fixture
def archives(tmp_path) -> Path:
    """A folder that holds the tiny world's two archives."""
    folder = tmp_path / "archives"
    folder.mkdir()
    write_archives(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_settings() -> TrainingSettings:
    """Settings with which a model learns colours and shapes."""
    return TrainingSettings(
        min_word_count=1, embedding_units=32, units=32, heads=2, dropout=0.0, label_smoothing=0.0,
        batch_size=4, epochs=24, learning_rate=0.01, patience=20, self_critical_epochs=1,
        self_critical_dropout=0.0, samples=3, members=1, student=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory, tiny_settings) -> Path:
    """A root folder after all steps of the pipeline, from `download` to `calibrate`: a copy for
    each process of the tests, of the one that the first of them made."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which all processes share
    made = folder / "made_tiny_root"
    with FileLock(folder / "tiny_root.lock"):
        if not made.exists():
            unfinished = tmp_path_factory.mktemp("unfinished_root")
            _make_tiny_root(Paths(unfinished), tmp_path_factory.mktemp("archives"), tiny_settings)
            shutil.copytree(unfinished, made)
    return shutil.copytree(made, tmp_path_factory.mktemp("tiny_root"), dirs_exist_ok=True)


def _make_tiny_root(paths: Paths, archives: Path, settings: TrainingSettings) -> None:
    from captioning.app import pipeline
    from captioning.export.keras_to_openvino import export_encoder

    write_archives(archives)
    pipeline.download(paths, archives)
    pipeline.check(paths)
    export_encoder(build_tiny_encoder(), paths.models)
    pipeline.extract_features(paths)
    pipeline.train(paths, settings)
    pipeline.calibrate(paths)


@pytest.fixture(scope="session")
def tiny_data():
    return make_tiny_data()
