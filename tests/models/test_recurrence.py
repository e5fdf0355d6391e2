import keras
import numpy as np
import pytest

from captioning.models.caption_model import SEQUENCE_PROCESSOR
from captioning.models.layers import EachCaption
from captioning.paths import Paths, find_model

IMAGES, CAPTIONS, WIDTH, UNITS = 3, 2, 5, 6
RANDOM = np.random.default_rng(0)


def build(wrap, precision="float32", length=None):
    """Word ids -> states. Each place of each caption is a word of its own, so that what the
    embedding learns is the gradient of the inputs."""
    keras.utils.set_random_seed(0)
    lstm = keras.layers.LSTM(
        UNITS,
        return_sequences=True,
        bias_initializer="random_normal",
        unit_forget_bias=False,
        dtype=precision,
    )
    words = keras.Input((CAPTIONS, length), dtype="int32")
    embedding = keras.layers.Embedding(100, WIDTH, embeddings_initializer="random_normal")
    return keras.Model(words, wrap(lstm, dtype=precision)(embedding(words)))


def states_and_gradients(wrap, wanted, **options):
    """What comes out, then the gradients of inputs, kernel, recurrent kernel and bias of its sum,
    each number `wanted` times."""
    model = build(wrap, **options)
    words = np.arange(wanted[..., 0].size).reshape(wanted.shape[:-1])
    states = keras.ops.convert_to_numpy(model(words)).astype("float32")
    before = model.get_weights()
    model.compile(
        keras.optimizers.SGD(1.0),
        lambda wanted, states: keras.ops.sum(wanted * states),
        jit_compile=False,
    )
    model.train_on_batch(words, wanted)
    changes = zip(before, model.get_weights(), strict=True)
    return [states, *(before - after for before, after in changes)]


def wanted_of(length):
    return RANDOM.normal(size=(IMAGES, CAPTIONS, length, UNITS)).astype("float32")


@pytest.mark.parametrize("length", [1, 2, 9])
def test_states_and_all_gradients_are_those_of_keras(length):
    wanted = wanted_of(length)
    expected = states_and_gradients(keras.layers.TimeDistributed, wanted, length=length)
    for options in ({}, {"length": length}):
        received = states_and_gradients(EachCaption, wanted, **options)
        assert len(received) == len(expected) == 5
        for one, other in zip(received, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6)
            assert np.abs(other).max() > 1e-3 or length == 1  # where no state was before


def test_in_bfloat16_it_is_as_near_to_float32_as_keras():
    """To 1 % of the largest number."""
    wanted = wanted_of(9)
    exact = states_and_gradients(EachCaption, wanted)
    rounded = states_and_gradients(EachCaption, wanted, precision="mixed_bfloat16")
    by_keras = states_and_gradients(
        keras.layers.TimeDistributed, wanted, precision="mixed_bfloat16", length=9
    )
    for one, other, of_keras in zip(exact, rounded, by_keras, strict=True):
        error, usual = np.abs(other - one).max(), np.abs(of_keras - one).max()
        assert error < 0.01 * np.abs(one).max()
        assert error < 2 * usual


def test_what_is_padded_on_the_right_changes_nothing():
    wanted = wanted_of(9)
    wanted[:, :, 4:] = 0
    padded = states_and_gradients(EachCaption, wanted)
    words = np.arange(wanted[..., 0].size).reshape(wanted.shape[:-1])
    model = build(EachCaption)
    np.testing.assert_allclose(
        padded[0][:, :, :4], keras.ops.convert_to_numpy(model(words[:, :, :4])), atol=1e-6
    )
    of_words = padded[1][words]  # (images, captions, length, width)
    assert not of_words[:, :, 4:].any()
    assert of_words[:, :, :4].any(axis=-1).all()


def test_the_shipped_model_says_what_it_said_with_the_lstm_of_keras():
    model = keras.models.load_model(
        Paths(find_model()).models / "caption_model.keras", compile=False
    )
    of_each = model.get_layer(SEQUENCE_PROCESSOR).get_layer("lstm")
    embedded = RANDOM.normal(size=(2, 3, 7, of_each.layer.cell.kernel.shape[0])).astype("float32")
    by_keras = of_each.layer(embedded.reshape(6, 7, -1))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(of_each(embedded)).reshape(6, 7, -1),
        keras.ops.convert_to_numpy(by_keras),
        atol=1e-5,
    )
