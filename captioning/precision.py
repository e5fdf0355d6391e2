"""What this processor computes fastest in."""

from captioning.runtime import openvino


def fastest_precision() -> str:
    """The dtype policy of Keras for training here: "mixed_bfloat16" where the processor has units
    for that, which are twice as fast, "float32" elsewhere."""
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "mixed_bfloat16" if "BF16" in capabilities else "float32"
