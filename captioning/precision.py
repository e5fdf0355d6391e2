"""What this processor computes fastest in."""

from captioning.runtime import openvino


def fastest_precision() -> str:
    """The dtype policy of Keras for training here: "mixed_bfloat16" where the processor has units
    for that, which are twice as fast, "float32" elsewhere."""
    return "mixed_bfloat16" if has_bfloat16_units() else "float32"


def has_bfloat16_units() -> bool:
    """Whether this processor computes in bfloat16 without conversions."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
