"""What this processor has, and what it computes fastest in."""

from captioning.inference.runtime import openvino


def training_precision() -> str:
    """The dtype policy of Keras for training here: "mixed_bfloat16" where the processor has units
    for that, which are twice as fast, "float32" elsewhere."""
    return "mixed_bfloat16" if has_bfloat16_units() else "float32"


def encoder_precision() -> str:
    """What an encoder computes in for training, as `captioning.inference.networks.Encoder` takes it: "bf16"
    where there are units for it, whose maps agree with those of float32 to a cosine of 0.999, "f32"
    elsewhere."""
    return "bf16" if has_bfloat16_units() else "f32"


def has_bfloat16_units() -> bool:
    """Whether this processor computes in bfloat16 without conversions."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
