import keras
import numpy as np
import pytest

from captioning.models.layers import ByteDropout


def dropped(rate, numbers, training=True, seed=0):
    return keras.ops.convert_to_numpy(ByteDropout(rate, seed=seed)(numbers, training=training))


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.75, 0.999])
def test_a_share_is_dropped_and_the_rest_makes_up_for_it(rate):
    out = dropped(rate, np.ones((500, 3, 64), "float32"))
    assert (out == 0).mean() == pytest.approx(rate, abs=0.01)
    assert out.mean() == pytest.approx(1, abs=0.25 if rate > 0.9 else 0.02)
    assert len(np.unique(out)) == 2


def test_each_number_is_dropped_by_itself():
    """The bytes of one draw are as independent as those of two, and so are neighbours."""
    out = dropped(0.5, np.ones((20000, 8), "float32")) > 0
    agreement = np.corrcoef(out, rowvar=False) - np.eye(8)
    assert np.abs(agreement).max() < 0.04


@pytest.mark.parametrize("width", [1, 3, 4, 5])
def test_any_width_will_do(width):
    out = dropped(0.5, np.ones((400, width), "float32"))
    assert out.shape == (400, width)
    np.testing.assert_allclose((out == 0).mean(axis=0), 0.5, atol=0.1)


def test_nothing_is_dropped_outside_of_training_or_at_rate_0():
    numbers = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    np.testing.assert_array_equal(dropped(0.5, numbers, training=False), numbers)
    np.testing.assert_array_equal(dropped(0.0, numbers), numbers)


def test_the_seed_decides_what_is_dropped_and_each_call_drops_anew():
    numbers = np.ones((50, 40), "float32")
    np.testing.assert_array_equal(dropped(0.5, numbers, seed=3), dropped(0.5, numbers, seed=3))
    assert (dropped(0.5, numbers, seed=3) != dropped(0.5, numbers, seed=4)).any()
    layer = ByteDropout(0.5, seed=3)
    first, second = (keras.ops.convert_to_numpy(layer(numbers, training=True)) for _ in range(2))
    assert (first != second).any()


def test_what_was_dropped_learns_nothing():
    scale = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((40,)), ByteDropout(0.5, seed=0), scale])
    model.compile(keras.optimizers.SGD(1.0), lambda _, said: keras.ops.sum(said))
    model.train_on_batch(np.ones((1, 40), "float32"), np.zeros((1, 1)))
    learnt = 1 - scale.get_weights()[0]
    assert sorted(np.unique(learnt)) == [0, 2]
