"""OpenVINO, imported without the message that it sends to its makers each time.

OpenVINO reports every import over the network, from a process that it starts for this, through a
package of its own; where that package is missing it goes on without. So to OpenVINO it is missing.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)

import openvino  # noqa: E402

__all__ = ["openvino"]
