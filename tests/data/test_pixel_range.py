import numpy as np
import pytest

from captioning.data.pixel_range import scale_to_bytes


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 7, 255], "uint8", [0, 7, 255]),
        ([False, True], "bool", [0, 255]),
        ([0, 7, 255], "int64", [0, 7, 255]),  # 8 bits in a wider type
        ([0, 1023], "uint16", [0, 255]),  # 10 bits
        ([0, 1500, 3000], "uint16", [0, 93, 187]),  # 12 bits, of which 4095 is white
        ([0, 16383], "uint16", [0, 255]),  # 14 bits
        ([0, 32768, 65535], "uint16", [0, 128, 255]),
        ([0, 50000, 100000], "int32", [0, 128, 255]),  # their own range
        ([-100, 0, 100], "int16", [0, 128, 255]),
        ([-5, -5], "int16", [0, 0]),
        ([0.0, 0.5, 1.0], "float32", [0, 128, 255]),
        ([0.0, 0.25], "float16", [0, 64]),  # dark stays dark
        ([0.0, 127.6, 255.0], "float64", [0, 128, 255]),
        ([0.0, 1.5], "float32", [0, 2]),  # from 0 to 255 as well
        ([-1.0, 0.0, 1.0], "float32", [0, 128, 255]),
        ([0.0, 500.0, 1000.0], "float32", [0, 128, 255]),
        ([np.nan, 0.5, np.inf, -np.inf, 1.0], "float32", [0, 128, 255, 0, 255]),
        ([-1e308, 0, 1e308], "float64", [0, 0, 0]),  # a range beyond all numbers
    ],
)
def test_the_type_and_range_of_values_tell_what_is_black_and_white(values, dtype, expected):
    scaled = scale_to_bytes(np.array(values, dtype))
    assert scaled.dtype == np.uint8
    assert scaled.tolist() == expected


def test_scaling_leaves_the_values_of_the_caller_as_they_were():
    values = np.array([0.0, np.nan, 900.0])
    scale_to_bytes(values)
    np.testing.assert_array_equal(values, [0.0, np.nan, 900.0])


def test_values_that_are_all_infinite_or_nan_are_refused():
    with pytest.raises(ValueError, match="Expected finite pixel values, got none"):
        scale_to_bytes(np.array([np.nan, np.inf]))
