import numpy as np
import pytest

from captioning.export.unsigned_activations import store_unsigned
from captioning.inference.openvino_runtime import Network, compile_network, openvino

opset = openvino.opset13
CHANNELS = 32
VALUES = np.linspace(-1.5, 1.5, CHANNELS * 100, dtype="float32").reshape(1, CHANNELS, 10, 10)
SYMMETRIC = (-1.28, 1.27, 256)


def build(low: float, high: float, levels: int, channels: int = 1) -> openvino.Model:
    """An integer convolution of values that are rounded to so many levels from low to high, and the
    rounded values themselves. `channels`: the number of limits."""
    values = opset.parameter([1, CHANNELS, 10, 10], np.float32)
    limits = [np.full((1, channels, 1, 1), limit, "float32") for limit in (low, high)]
    rounded = opset.fake_quantize(values, *limits, *limits, levels)
    integers = np.random.default_rng(0).integers(-63, 64, (CHANNELS, CHANNELS, 1, 1))
    weights = opset.convert(opset.constant(integers.astype("int8")), np.float32)
    weights = opset.multiply(weights, np.float32(0.01))
    convolution = opset.convolution(rounded, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    return openvino.Model([convolution.output(0), rounded.output(0)], [values])


def output_ranges(network: openvino.Model) -> list[tuple[float, ...]]:
    """The lowest and the highest output of each quantisation."""
    return [
        tuple(float(operation.input_value(number).get_node().data.min()) for number in (3, 4))
        for operation in network.get_ops()
        if operation.get_type_name() == "FakeQuantize"
    ]


@pytest.mark.parametrize("channels", [1, CHANNELS])
def test_symmetric_activations_become_unsigned_integers_of_the_same_value(channels):
    network = build(*SYMMETRIC, channels)
    before = Network(compile_network(network))([VALUES])
    store_unsigned(network)
    assert output_ranges(network) == [(0, 255)]
    after = Network(compile_network(network))([VALUES])
    for values, expected in zip(after, before, strict=True):
        np.testing.assert_allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize("range_and_levels", [(0, 2.55, 256), (-1, 1.55, 256), (-1.27, 1.27, 255)])
def test_other_ranges_and_other_levels_stay_as_they_are(range_and_levels):
    network = build(*range_and_levels)
    before = network.get_ops()
    store_unsigned(network)
    assert network.get_ops() == before


def test_a_second_time_changes_nothing():
    network = build(*SYMMETRIC)
    store_unsigned(network)
    before = network.get_ops()
    store_unsigned(network)
    assert network.get_ops() == before
