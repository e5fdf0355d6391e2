"""Checks that networks from a folder have the metadata, inputs and outputs that this package uses.

Without these checks, a damaged or forged file would fail in the middle of a search, or ask for all
memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from captioning.errors import UserError
from captioning.inference.network_files import DECODER_PREFILL, DECODER_STEP
from captioning.inference.openvino_runtime import openvino

# Upper limits, far beyond the networks in common use.
MAX_IMAGE_SIDE = 2048
MAX_FEATURE_WIDTH = 2**16
MAX_NUMBERS = {"longest_caption": 1000, "feature_width": MAX_FEATURE_WIDTH, "units": 2**16}

_ANY = -1  # a length that may differ between calls


def require_encoder_layout(network: openvino.Model, path: Path) -> None:
    """Raises UserError unless the network takes images (batch, height, width, 3) of one size and
    returns feature maps (batch, cells, feature_width) of one width."""
    _require_shapes(network.inputs, [(_ANY, _ANY, _ANY, 3)], path)
    _require_shapes(network.outputs, [(_ANY, _ANY, _ANY)], path)
    _, height, width, _ = network.input(0).partial_shape
    _, _, feature_width = network.output(0).partial_shape
    for length, limit in (
        (height, MAX_IMAGE_SIDE),
        (width, MAX_IMAGE_SIDE),
        (feature_width, MAX_FEATURE_WIDTH),
    ):
        if length.is_dynamic or not 1 <= length.get_length() <= limit:
            raise UserError(
                f"Expected lengths from 1 to {limit} in {path}, got {length}. Fetch the file "
                "again, or build the encoder again."
            )


def image_size(network: openvino.Model) -> tuple[int, int]:
    """Returns height and width in pixels of an encoder's input images."""
    _, height, width, _ = network.input(0).partial_shape
    return height.get_length(), width.get_length()


def require_decoder_layout(
    prefill: openvino.Model,
    step: openvino.Model,
    metadata: Mapping[str, str],
    vocabulary_size: int,
    folder: Path,
) -> None:
    """Raises UserError unless the networks have the inputs and outputs that
    `captioning.inference.networks.Decoder` describes, of the lengths in their `metadata`."""
    prefill_path, path = folder / DECODER_PREFILL, folder / DECODER_STEP
    for name, limit in MAX_NUMBERS.items():
        text = metadata[name]
        if not (text.isascii() and text.isdecimal() and 1 <= int(text[:10]) <= limit):
            raise UserError(
                f"Expected {name} from 1 to {limit:,} in the metadata of {path}, got {text[:80]!r}."
                " Export the model again."
            )
    state = (_ANY, _ANY, int(metadata["units"]))
    image_context = [output.partial_shape for output in prefill.outputs]
    feature_maps = (_ANY, _ANY, int(metadata["feature_width"]))
    log_probs, attention = (_ANY, _ANY, vocabulary_size), (_ANY, _ANY, _ANY)
    results = [log_probs, state, state, attention][: max(3, len(step.outputs))]
    _require_shapes(prefill.inputs, [feature_maps], prefill_path)
    _require_shapes(step.inputs, [(_ANY, _ANY), state, state, *image_context], path)
    _require_shapes(step.outputs, results, path)


def _require_shapes(
    ports: Sequence[openvino.Output], shapes: Iterable[Sequence[int]], path: Path
) -> None:
    """Raises UserError unless the ports, inputs or outputs of a network, have these shapes."""
    expected = [openvino.PartialShape(shape) for shape in shapes]
    actual = [port.partial_shape for port in ports]
    if len(actual) != len(expected) or not all(
        map(openvino.PartialShape.compatible, actual, expected)
    ):
        raise UserError(
            f"Expected a network of the shapes {', '.join(map(str, expected))} in {path}, got "
            f"{', '.join(map(str, actual))[:200]}. Fetch the file again, or export the model again."
        )
