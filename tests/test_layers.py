import keras
import numpy as np
import pytest

from captioning.layers import EachCaption

IMAGES, CAPTIONS, WIDTH, UNITS = 2, 3, 6, 4


def models():
    """The layer, and what Keras has for a fixed number of captions, with equal weights. In front of
    both is a layer that learns through them."""
    for wrap in (EachCaption, keras.layers.TimeDistributed):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((CAPTIONS, None, WIDTH))
        lstm = keras.layers.LSTM(UNITS, return_sequences=True, bias_initializer="random_normal")
        model = keras.Model(inputs, wrap(lstm)(keras.layers.Dense(WIDTH)(inputs)))
        model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
        yield model


def numbers(length, width, seed):
    return np.random.default_rng(seed).normal(size=(IMAGES, CAPTIONS, length, width)).astype("f4")


@pytest.mark.parametrize("length", [1, 2, 9])
def test_each_caption_is_read_as_the_lstm_of_keras_reads_it(length):
    ours, keras_own = (model.predict_on_batch(numbers(length, WIDTH, 1)) for model in models())
    assert ours.shape == (IMAGES, CAPTIONS, length, UNITS)
    np.testing.assert_allclose(ours, keras_own, atol=1e-6)


def test_captions_of_any_length_teach_what_they_teach_the_lstm_of_keras():
    ours, keras_own = models()
    before = ours.get_weights()
    for length in (5, 1, 3):
        of_both = [
            model.train_on_batch(numbers(length, WIDTH, length), numbers(length, UNITS, 7))
            for model in (ours, keras_own)
        ]
        assert of_both[0] == pytest.approx(of_both[1], rel=1e-5)
    for learnt, expected, begun in zip(
        ours.get_weights(), keras_own.get_weights(), before, strict=True
    ):
        np.testing.assert_allclose(learnt, expected, atol=1e-6)
        assert np.abs(learnt - begun).max() > 1e-3
