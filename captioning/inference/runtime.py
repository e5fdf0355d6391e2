"""OpenVINO, imported without what captioning has no use for.

OpenVINO reports every import over the network, from a process that it starts for this, through a
package of its own; where that package is missing it goes on without. So to OpenVINO it is missing.

So is its converter of other networks, which takes a third of the import, and more where TensorFlow
is installed, whose logging it imports: until somebody asks for `openvino.convert_model`, as Keras
does when it exports.
"""

import sys

_CONVERTER = "openvino.tools.ovc"

for name in ("openvino_telemetry", _CONVERTER):
    sys.modules.setdefault(name, None)

import openvino  # noqa: E402

__all__ = ["openvino"]


def _import_converter(name: str):
    """What a module does about a name that it lacks (PEP 562)."""
    if name != "convert_model":
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")
    from openvino.tools.ovc import convert_model

    openvino.convert_model = convert_model
    return convert_model


if sys.modules[_CONVERTER] is None:  # not, where OpenVINO was imported whole before
    del sys.modules[_CONVERTER]
    openvino.__getattr__ = _import_converter
