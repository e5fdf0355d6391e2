"""The files of exported networks, an .xml file and a .bin file each: reads, checks, copies and
replaces them.

An .xml file is never read with the weights of another network: networks are replaced all at once,
by one renaming of their folder. If a run is killed after that, the next one that reads or replaces
a network moves the files to their places. The checks refuse networks whose metadata, inputs and
outputs this package cannot use; a damaged or forged one would fail in the middle of a search, or
ask for all memory.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from captioning.data.vocabulary import Vocabulary
from captioning.errors import UserError
from captioning.files import name_in_errors
from captioning.inference.openvino_runtime import (
    core,
    damage_as_user_error,
    damaged_network,
    openvino,
)

ENCODER = "encoder.xml"
DECODER_PREFILL = "decoder_prefill.xml"
DECODER_STEP = "decoder_step.xml"

NETWORKS = (ENCODER, DECODER_PREFILL, DECODER_STEP)

# Folders below the one of the networks: networks that are being written, and networks that have
# replaced others, but may not be in their places yet.
_SAVING = ".saving-networks"
_NEW = ".new-networks"

# Upper limits, far beyond the networks in common use.
MAX_IMAGE_SIDE = 2048
MAX_FEATURE_WIDTH = 2**16
MAX_NUMBERS = {"longest_caption": 1000, "feature_width": MAX_FEATURE_WIDTH, "units": 2**16}

_ANY = -1  # a length that may differ between calls


def network_exists(path: Path) -> bool:
    """Returns whether there is an exported network `path` (.xml)."""
    return _find(path)[0].exists()


def read_network(path: Path) -> openvino.Model:
    """Reads an exported network, `path` (.xml) and the .bin file beside it. Raises
    FileNotFoundError if it is missing and UserError if it is damaged."""
    return parse_network(path, *read_network_files(path))


def parse_network(path: Path, xml: bytes, weights: bytes) -> openvino.Model:
    """Makes a network of the contents of its files. Raises UserError, which names `path`, if they
    are damaged."""
    with damage_as_user_error(path):
        return core().read_model(xml, weights)


def read_network_files(path: Path) -> tuple[bytes, bytes]:
    """Returns the contents of an exported network, `path` (.xml) and the .bin file beside it.
    Raises FileNotFoundError if the network is missing and UserError if its weights are."""
    xml_path, weights_path = _find(path)
    if not xml_path.exists():
        raise FileNotFoundError(
            f"There is no {path}. Name the folder of the exported model, or train one."
        )
    try:
        return xml_path.read_bytes(), weights_path.read_bytes()
    except FileNotFoundError as error:
        raise damaged_network(path) from error


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


def require_one_run(
    prefill: Mapping[str, str], step: Mapping[str, str], vocabulary: Vocabulary, folder: Path
) -> None:
    """Raises UserError unless the metadata of the two networks of a decoder are the same, and name
    the `vocabulary`."""
    if prefill != step:
        raise UserError(
            f"Expected {DECODER_PREFILL} and {DECODER_STEP} of one export in {folder}, got "
            "those of two. Fetch both again, or export the model again."
        )
    if step["vocabulary"] != vocabulary.fingerprint:
        raise UserError(
            f"Expected the vocabulary {step['vocabulary']} of the model in {folder}, got "
            f"{vocabulary.fingerprint} with {len(vocabulary)} words. Take the model and "
            "its tokenizer.p from the same training run."
        )


def require_decoder_layout(
    prefill: openvino.Model,
    step: openvino.Model,
    metadata: Mapping[str, str],
    vocabulary_size: int,
    folder: Path,
) -> None:
    """Raises UserError unless the networks have the inputs and outputs that
    `captioning.inference.decoder.Decoder` describes, of the lengths in their `metadata`."""
    prefill_path, path = folder / DECODER_PREFILL, folder / DECODER_STEP
    for name, limit in MAX_NUMBERS.items():
        text = metadata[name]
        is_number = text.isascii() and text.isdecimal()
        if not (is_number and len(text) <= len(str(limit)) and 1 <= int(text) <= limit):
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


def copy_network(source: Path, target: Path) -> None:
    """Copies a network, .xml and .bin, to a path without one."""
    xml_path, weights_path = _find(source)
    with name_in_errors(target):
        shutil.copyfile(weights_path, target.with_suffix(".bin"))
        shutil.copyfile(xml_path, target)


@contextmanager
def replace_networks(folder: Path) -> Iterator[Path]:
    """Yields an empty folder for new networks. At the end of the block they replace those of the
    same names in `folder`, and other files in it are deleted. If the block raises, all networks
    stay as they were. Only one program may replace networks at a time: see `only_writer`."""
    _finish_replacement(folder)
    new_folder = folder / _SAVING
    shutil.rmtree(new_folder, ignore_errors=True)  # of a killed run
    new_folder.mkdir(parents=True)
    try:
        yield new_folder
        names = {Path(name).stem for name in NETWORKS if (new_folder / name).exists()}
        for path in new_folder.iterdir():
            if path.stem not in names:
                path.unlink()
        new_folder.replace(folder / _NEW)
    except BaseException:  # also after Ctrl-C
        shutil.rmtree(new_folder, ignore_errors=True)
        raise
    _finish_replacement(folder)


def _find(path: Path) -> tuple[Path, Path]:
    """Returns where the .xml file and the .bin file of a network are."""
    with suppress(OSError):  # the folder cannot be written: the files are read where they are
        _finish_replacement(path.parent)
    new_path = path.parent / _NEW / path.name
    if not new_path.exists():
        return path, path.with_suffix(".bin")
    new_weights_path = new_path.with_suffix(".bin")
    is_moved = not new_weights_path.exists()
    return new_path, path.with_suffix(".bin") if is_moved else new_weights_path


def _finish_replacement(folder: Path) -> None:
    """Moves networks that have replaced others to their places: first the weights of each, then its
    .xml file. Several programs may do so at once."""
    new_folder = folder / _NEW
    for new_path in list(new_folder.glob("*.xml")):
        for path in (new_path.with_suffix(".bin"), new_path):
            with suppress(FileNotFoundError):  # it is moved already
                path.replace(folder / path.name)
    with suppress(FileNotFoundError):
        new_folder.rmdir()


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
