"""Makes the quantised activations of a network unsigned, so that it computes the same on processors
with AMX as on others.

With AMX, OpenVINO stores activations with a symmetric range as signed integers, elsewhere as
unsigned ones. This rounds a few values differently. The next layers amplify the differences, until
some captions change.
"""

import numpy as np

from captioning.inference.openvino_runtime import openvino

_LEVELS = 256  # of quantised activations; weights have fewer
_ZERO_POINT = 128  # of a symmetric range; NNCF makes zero points whole numbers


def store_unsigned(network: openvino.Model) -> None:
    """Changes `network`, quantised by NNCF, in place: wherever OpenVINO could choose signed
    integers, the network itself rounds to unsigned ones and subtracts their zero point. The values
    stay the same."""
    opset = openvino.opset13
    for operation in network.get_ordered_ops():
        if operation.get_type_name() != "FakeQuantize":
            continue
        value, *limits = operation.input_values()
        low, high, new_low, new_high = (limit.get_node().data for limit in limits)
        step = (new_high - new_low) / (_LEVELS - 1)
        is_symmetric = (abs(new_low + _ZERO_POINT * step) <= 0.01 * step).all()
        if not is_symmetric or operation.get_attributes()["levels"] != _LEVELS:
            continue
        readers = operation.output(0).get_target_inputs()
        least, most = np.float32(0), np.float32(_LEVELS - 1)
        integers = opset.fake_quantize(value, low, high, least, most, _LEVELS)
        dequantised = opset.multiply(opset.subtract(integers, np.float32(_ZERO_POINT)), step)
        for reader in readers:
            reader.replace_source_output(dequantised.output(0))
