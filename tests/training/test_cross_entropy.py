import keras
import numpy as np
import pytest

from captioning.training.cross_entropy import SmoothedCrossentropy

LOGITS = np.random.default_rng(0).normal(size=(3, 4, 6)).astype("float32")
TARGETS = np.array([[1, 2, 3, 0], [5, 4, 0, 0], [2, 2, 2, 2]], "int32")
WEIGHTS = (TARGETS != 0).astype("float32")


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_the_loss_equals_that_of_keras_on_dense_targets(label_smoothing):
    dense = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=label_smoothing, reduction="sum"
    )
    expected = dense(keras.ops.one_hot(TARGETS, 6), LOGITS, WEIGHTS)
    loss = SmoothedCrossentropy(label_smoothing)(TARGETS, LOGITS, WEIGHTS)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_gradient_is_the_prediction_minus_the_smoothed_target(label_smoothing):
    layer = keras.layers.Dense(6, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((4, 3)), layer])
    model.compile(keras.optimizers.SGD(1.0), SmoothedCrossentropy(label_smoothing))
    inputs = np.random.default_rng(1).normal(size=(3, 4, 3)).astype("float32")
    model.train_on_batch(inputs, TARGETS, WEIGHTS)
    smoothed_targets = (1 - label_smoothing) * np.eye(6)[TARGETS] + label_smoothing / 6
    predicted = np.full((3, 4, 6), 1 / 6)
    expected = -np.einsum("blf,blc,bl->fc", inputs, predicted - smoothed_targets, WEIGHTS)
    np.testing.assert_allclose(layer.get_weights()[0], expected, atol=1e-5)


def test_the_loss_of_a_uniform_prediction_is_the_logarithm_of_the_number_of_classes():
    loss = SmoothedCrossentropy(0.1)(TARGETS, np.zeros_like(LOGITS), WEIGHTS / WEIGHTS.sum())
    assert float(loss) == pytest.approx(np.log(6), abs=1e-6)


def test_the_loss_of_a_very_wrong_prediction_is_finite_and_has_a_gradient():
    logits = np.array([[0.0, 1000.0]], "float32")
    assert float(SmoothedCrossentropy()(np.array([[0]]), logits[None], np.ones((1, 1)))) == 1000

    layer = keras.layers.Dense(2, use_bias=False)
    model = keras.Sequential([keras.Input((1, 1)), layer])
    model.compile(keras.optimizers.SGD(1.0), SmoothedCrossentropy())
    layer.set_weights([logits])
    model.train_on_batch(np.ones((1, 1, 1)), np.array([[0]]))
    np.testing.assert_allclose(layer.get_weights()[0], [[1, 999]])


def test_padding_does_not_change_the_loss():
    changed = LOGITS.copy()
    changed[WEIGHTS == 0] = 100.0
    loss = SmoothedCrossentropy()
    assert float(loss(TARGETS, changed, WEIGHTS)) == float(loss(TARGETS, LOGITS, WEIGHTS))


def test_a_saved_loss_is_loaded_with_its_label_smoothing():
    loss = SmoothedCrossentropy(0.3)
    loaded = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(loaded(TARGETS, LOGITS, WEIGHTS)) == float(loss(TARGETS, LOGITS, WEIGHTS))
