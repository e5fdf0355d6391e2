import subprocess
import sys

import keras
import numpy as np
import pytest

from captioning.training import side_by_side
from captioning.training.losses import SmoothedCrossentropy
from captioning.training.side_by_side import SideBySide

WORDS = 7


@pytest.fixture(params=[1, 2, 3])
def parts(request, monkeypatch):
    monkeypatch.setattr(side_by_side, "_parts", lambda: request.param)
    return request.param


def build(optimizer="sgd", dropout=0.0, precision="float32"):
    keras.utils.set_random_seed(0)
    features = keras.Input((None, 4), name="features")
    words = keras.Input((None, None), dtype="int32", name="words")
    embedded = keras.layers.Embedding(WORDS, 4, name="embedding", dtype=precision)(words)
    image = keras.layers.GlobalAveragePooling1D(dtype=precision)(features)
    merged = embedded + keras.layers.Reshape((1, 1, 4), dtype=precision)(image)
    merged = keras.layers.Dropout(dropout, dtype=precision)(merged)
    logits = keras.layers.Dense(WORDS, name="logits", dtype=precision)(merged)
    logits = keras.layers.Activation("linear", dtype="float32")(logits)
    network = keras.Model({"features": features, "words": words}, logits)
    network.compile(optimizer, SmoothedCrossentropy(0.1), jit_compile=False)
    return network


def batch(images, captions=2, length=3, cells=5):
    random = np.random.default_rng(images)
    shape = images, captions, length
    inputs = {
        "features": random.normal(size=(images, cells, 4)).astype("float32"),
        "words": random.integers(WORDS, size=shape, dtype="int32"),
    }
    return inputs, random.integers(WORDS, size=shape), random.random(shape, dtype="float32")


def assert_alike(one, other, atol=1e-6):
    for mine, yours in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(mine, yours, atol=atol)


@pytest.mark.parametrize("images", [1, 2, 3, 4, 7])
def test_a_step_is_that_of_the_whole_batch(images, parts):
    whole, parted = build(), build()
    begun = whole.get_weights()
    learner = SideBySide(parted)
    losses = [float(model.train_on_batch(*batch(images))) for model in (whole, learner)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert_alike(whole, parted)
    for weights, before in zip(whole.get_weights(), begun, strict=True):
        assert np.abs(weights - before).max() > 1e-3
    losses = [float(model.test_on_batch(*batch(images))) for model in (whole, learner)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_step_in_bfloat16_whose_averages_are_kept_is_nearly_that_of_the_whole_batch(parts):
    whole, parted = (
        build(keras.optimizers.SGD(0.1, use_ema=True), precision="mixed_bfloat16") for _ in "ab"
    )
    for model in (whole, SideBySide(parted)):
        for images in (4, 3):
            model.train_on_batch(*batch(images))
    assert_alike(whole, parted, atol=1e-2)
    for one, other in zip(whole.optimizer.variables, parted.optimizer.variables, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-2)


def test_each_part_drops_other_numbers(monkeypatch):
    monkeypatch.setattr(side_by_side, "_parts", lambda: 2)
    (inputs, *_) = batch(1)
    twice = {name: np.repeat(array, 2, axis=0) for name, array in inputs.items()}
    first, second = SideBySide(build(dropout=0.5))(twice, training=True)
    assert first.shape == second.shape == (1, 2, 3, WORDS)
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("images", [1, 2, 5])
def test_what_is_said_of_a_batch_comes_whole_and_in_order(images, parts):
    network = build()
    inputs, *_ = batch(images)
    said = SideBySide(network).predict_on_batch(inputs)
    assert said.shape == (images, 2, 3, WORDS)
    np.testing.assert_allclose(said, network.predict_on_batch(inputs), atol=1e-6)


def test_several_outputs_keep_their_order(parts):
    network = build()
    asked = keras.Model(network.input, [network.output, network.get_layer("embedding").output])
    asked.compile(jit_compile=False)
    inputs, *_ = batch(5)
    said, expected = SideBySide(asked).predict_on_batch(inputs), asked.predict_on_batch(inputs)
    assert [each.shape for each in said] == [(5, 2, 3, WORDS), (5, 2, 3, 4)]
    for one, other in zip(said, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_batches_may_differ_in_every_size(parts):
    whole, parted = build(), build()
    learner = SideBySide(parted)
    for sizes in ((4, 2, 3, 5), (1, 1, 7, 2), (3, 5, 1, 9)):
        losses = [float(model.train_on_batch(*batch(*sizes))) for model in (whole, learner)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_what_learnt_in_parts_is_saved_whole_and_goes_on(tmp_path, parts):
    network = build(keras.optimizers.Adam(0.1))
    SideBySide(network).train_on_batch(*batch(4))
    network.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for model in (network, loaded):
        assert int(model.optimizer.iterations) == 1
        SideBySide(model).train_on_batch(*batch(5))
        assert int(model.optimizer.iterations) == 2
    assert_alike(network, loaded)


def test_each_part_is_computed_for_itself(parts):
    seen = []

    class Look(keras.layers.Layer):
        def call(self, rows):
            seen.append(rows.shape)
            return rows

    rows = keras.Input((2,))
    network = keras.Model(rows, Look()(rows))
    network.compile(jit_compile=False)
    seen.clear()
    SideBySide(network)(np.zeros((6, 2), "float32"))
    assert seen == parts * [(6 // parts, 2)]


def test_a_model_that_was_not_compiled_is_refused():
    rows = keras.Input((2,))
    with pytest.raises(ValueError, match="Wanted: a compiled model. Received: bare, not compiled"):
        SideBySide(keras.Model(rows, keras.layers.Dense(2)(rows), name="bare"))


def test_training_without_sample_weights_is_refused():
    inputs, targets, _ = batch(3)
    with pytest.raises(ValueError, match="Wanted: sample weights"):
        SideBySide(build()).train_on_batch(inputs, targets)


@pytest.mark.parametrize(
    "cores, gpus, backend, parts",
    [
        (1, [], "tensorflow", 1),
        (2, [], "tensorflow", 2),
        (4, [], "tensorflow", 1),
        (2, ["a GPU"], "tensorflow", 1),
        (2, [], "jax", 1),
    ],
)
def test_there_are_two_parts_for_tensorflow_on_two_cores(cores, gpus, backend, parts, monkeypatch):
    monkeypatch.setattr(side_by_side, "cores", lambda: cores)
    monkeypatch.setattr("keras.backend.backend", lambda: backend)
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: gpus)
    assert side_by_side._parts() == parts


# With two cores: the threads of an operation once asked for in time, and once too late.
THREADS = """
from captioning.training import side_by_side
import tensorflow as tf
side_by_side.cores = lambda: 2
threads = tf.config.threading
before = threads.get_intra_op_parallelism_threads()
if {late}:
    tf.constant(1) + 1
side_by_side.one_thread_an_operation()
print(before, threads.get_intra_op_parallelism_threads())
"""


@pytest.mark.parametrize(("late", "expected"), [(False, "0 1"), (True, "0 0")])
def test_an_operation_takes_one_thread_if_nothing_was_computed_before(late, expected):
    done = subprocess.run(
        [sys.executable, "-c", THREADS.format(late=late)], capture_output=True, text=True
    )
    assert done.stdout.strip() == expected, done.stderr
