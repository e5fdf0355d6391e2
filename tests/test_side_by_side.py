import subprocess
import sys

import keras
import numpy as np
import pytest

from captioning import side_by_side
from captioning.losses import SmoothedCrossentropy
from captioning.side_by_side import SideBySide

WORDS = 7
RANDOM = np.random.default_rng(0)


@pytest.fixture(params=[1, 2, 3])
def parts(request, monkeypatch):
    monkeypatch.setattr(side_by_side, "cores", lambda: request.param)
    return request.param


def build():
    keras.utils.set_random_seed(0)
    features = keras.Input((None, 4), name="features")
    words = keras.Input((None, None), dtype="int32", name="words")
    embedded = keras.layers.Embedding(WORDS, 4, name="embedding")(words)
    image = keras.layers.GlobalAveragePooling1D()(features)
    merged = embedded + keras.layers.Reshape((1, 1, 4))(image)
    logits = keras.layers.Dense(WORDS, name="logits")(merged)
    network = keras.Model({"features": features, "words": words}, logits)
    network.compile(keras.optimizers.SGD(1.0), SmoothedCrossentropy(0.1), jit_compile=False)
    return network


def batch(images):
    inputs = {
        "features": RANDOM.normal(size=(images, 5, 4)).astype("float32"),
        "words": RANDOM.integers(WORDS, size=(images, 2, 3), dtype="int32"),
    }
    targets = RANDOM.integers(WORDS, size=(images, 2, 3), dtype="int32")
    return inputs, targets, RANDOM.random(targets.shape, dtype="float32")


@pytest.mark.parametrize("images", [1, 2, 3, 4, 7])
def test_a_step_is_that_of_the_whole_batch(images, parts):
    whole, parted = build(), build()
    begun = whole.get_weights()
    given = batch(images)
    learner = SideBySide(parted)
    losses = [float(model.train_on_batch(*given)) for model in (whole, learner)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for one, other, before in zip(whole.get_weights(), parted.get_weights(), begun, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
        assert np.abs(one - before).max() > 1e-3
    losses = [float(model.test_on_batch(*given)) for model in (whole, learner)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("images", [1, 2, 5])
def test_what_is_said_of_a_batch_comes_whole_and_in_order(images, parts):
    network = build()
    inputs, _, _ = batch(images)
    said = SideBySide(network).predict_on_batch(inputs)
    assert said.shape == (images, 2, 3, WORDS)
    np.testing.assert_allclose(said, network.predict_on_batch(inputs), atol=1e-6)


def test_several_outputs_keep_their_order(parts):
    network = build()
    asked = keras.Model(network.input, [network.output, network.get_layer("embedding").output])
    asked.compile(jit_compile=False)
    inputs, _, _ = batch(5)
    logits, embedded = SideBySide(asked).predict_on_batch(inputs)
    assert (logits.shape, embedded.shape) == ((5, 2, 3, WORDS), (5, 2, 3, 4))


def test_batches_may_differ_in_every_size(parts):
    learner = SideBySide(build())
    losses = [learner.train_on_batch(*batch(images)) for images in (4, 1, 3)]
    assert np.isfinite(losses).all()


def test_what_learnt_in_parts_is_saved_whole_and_goes_on(tmp_path, parts):
    network = build()
    network.compile(keras.optimizers.Adam(0.1), SmoothedCrossentropy(), jit_compile=False)
    first, second = batch(4), batch(4)
    SideBySide(network).train_on_batch(*first)
    network.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for model in (network, loaded):
        SideBySide(model).train_on_batch(*second)
    for one, other in zip(network.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


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


def test_more_cores_than_parts_are_worth_are_left_to_the_backend(monkeypatch):
    monkeypatch.setattr(side_by_side, "cores", lambda: 5)
    assert side_by_side._parts() == 1


# With two cores: the threads of an operation once asked for in time, and once too late.
THREADS = """
from captioning import side_by_side
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
