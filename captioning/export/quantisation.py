"""Quantises exported networks to 8-bit integers, and keeps them only if captions stay as good.

The files become smaller. On processors with VNNI, the encoder takes a third of the time and the
search two thirds. Only this module needs NNCF. `captioning.inference.encoder` and `decoder` run the
networks.
"""

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from captioning.data.dataset import Dataset
from captioning.data.images import load_image
from captioning.data.vocabulary import Vocabulary
from captioning.errors import UserError
from captioning.evaluation.evaluate import evaluate
from captioning.export.unsigned_activations import store_unsigned
from captioning.inference.decoder import Decoder, RunNetwork
from captioning.inference.encoder import Encoder
from captioning.inference.extract_features import extract_feature_maps
from captioning.inference.network_files import (
    DECODER_PREFILL,
    DECODER_STEP,
    ENCODER,
    copy_network,
    image_size,
    read_network,
    replace_networks,
)
from captioning.inference.openvino_runtime import (
    ENCODER_ID_KEY,
    openvino,
    read_encoder_id,
    save_network,
    without_telemetry,
    write_metadata,
)
from captioning.paths import Paths
from captioning.settings import SearchSettings

CALIBRATION_IMAGES = 300  # training images for the encoder: NNCF's default
DECODER_CALIBRATION_IMAGES = 64  # fewer, because each is captioned word by word
TOLERANCE = 0.005  # of development CIDEr, which is printed as 0.5; runs differ by twice that

_DECODER_FILES = DECODER_PREFILL, DECODER_STEP


class QualityLoss(UserError):
    """The quantised networks lose more than `TOLERANCE` of the development CIDEr."""


def quantise_within_tolerance(paths: Paths) -> tuple[float, float]:
    """Quantises the networks in `paths.models` that are not quantised yet, and replaces them unless
    the development CIDEr falls by more than `TOLERANCE`.

    Training images calibrate the networks. Returns the development CIDEr, from 0 to 10, before and
    after. Raises `QualityLoss`, and leaves all files as they were, if it falls too far. Raises
    UserError if all networks are quantised already, or if encoder and decoder do not belong
    together.
    """
    dataset = Dataset.load(paths.dataset)
    vocabulary = Vocabulary.load(paths.vocabulary)
    networks = {name: read_network(paths.models / name) for name in (*_DECODER_FILES, ENCODER)}
    encoder_id = read_encoder_id(networks[ENCODER])
    Decoder.load(paths.models, vocabulary).require_encoder(encoder_id)
    unquantised = [name for name, network in networks.items() if not _is_quantised(network)]
    if not unquantised:
        raise UserError(
            f"Expected an unquantised encoder or decoder in {paths.models}, got both quantised. "
            "To quantise them again, make new ones: `captioning features --weights FILE`, "
            "then `captioning export`."
        )
    references = dataset.captions_of("development")

    def development_cider(models: Path, maps_path: Path) -> float:
        # The maps are closed when this function returns, because Windows removes no open file.
        maps = extract_feature_maps(Encoder(models), dataset.images, references, maps_path)
        decoder = Decoder.load(models, vocabulary)
        return evaluate(decoder, maps, references)["CIDEr"]

    with replace_networks(paths.models) as trial:
        for name in networks:
            copy_network(paths.models / name, trial / name)
        _quantise_trial(paths.models, trial, unquantised, dataset, vocabulary)
        before = development_cider(paths.models, trial / "before.bin")
        # An encoder that stays the same makes the same maps.
        after_maps = "after.bin" if ENCODER in unquantised else "before.bin"
        after = development_cider(trial, trial / after_maps)
        _require_tolerable(before, after, unquantised, paths.models)
    return before, after


def quantise_encoder(source: Path, image_paths: Sequence[Path], target: Path) -> None:
    """Writes the encoder in the folder `source` to the folder `target` with 8-bit weights and
    activations. The images set the quantisation ranges.

    Sums stay in floats: the ranges of their inputs differ most, and they take the least time.
    """
    network = read_network(source / ENCODER)
    size = image_size(network)
    quantised = _quantise(
        network,
        image_paths,
        lambda path: load_image(path, size)[None],
        lambda operation: operation.get_type_name() != "Add",
    )
    store_unsigned(quantised)
    if encoder_id := read_encoder_id(network):
        write_metadata(quantised, {ENCODER_ID_KEY: f"{encoder_id} int8"})
    target.mkdir(parents=True, exist_ok=True)
    save_network(quantised, target / ENCODER)


def quantise_decoder(
    source: Path, vocabulary: Vocabulary, features: np.ndarray, target: Path
) -> None:
    """Writes the decoder in the folder `source` to the folder `target` with its multiplications by
    weights in 8-bit integers. It captions `features` (images, cells, feature_width) to set the
    quantisation ranges. A file that is quantised already is copied.

    Other operations stay in floats: normalisation would lose small differences.
    """
    target.mkdir(parents=True, exist_ok=True)
    decoder = _RecordingDecoder.load(source, vocabulary)
    for feature_map in features:  # separately, so that each image has the same weight
        list(decoder.search(feature_map[None], SearchSettings()))
    all_inputs = decoder.prefill_inputs, decoder.step_inputs
    for name, inputs in zip(_DECODER_FILES, all_inputs, strict=True):
        network = read_network(source / name)
        if _is_quantised(network):
            copy_network(source / name, target / name)
        else:
            save_network(_quantise(network, inputs, None, _multiplies_by_weights), target / name)


def _quantise_trial(
    models: Path, trial: Path, unquantised: list[str], dataset: Dataset, vocabulary: Vocabulary
) -> None:
    """Quantises the networks in the folder `models` whose names are `unquantised`, and writes them
    to the folder `trial`."""
    train = dataset.splits["train"]
    names = random.Random(0).sample(train, min(CALIBRATION_IMAGES, len(train)))
    if ENCODER in unquantised:
        quantise_encoder(models, [dataset.images / name for name in names], trial)
    if any(name in unquantised for name in _DECODER_FILES):
        names = names[:DECODER_CALIBRATION_IMAGES]
        maps_path = trial / "calibration.bin"
        maps = extract_feature_maps(Encoder(trial), dataset.images, names, maps_path)
        quantise_decoder(models, vocabulary, np.stack(list(maps.values())), trial)


def _require_tolerable(before: float, after: float, unquantised: list[str], models: Path) -> None:
    loss = before - after
    if loss > TOLERANCE:
        raise QualityLoss(
            f"Expected development CIDEr to fall by at most {TOLERANCE * 100:.1f}, got "
            f"{loss * 100:.2f} ({before * 100:.2f} before, {after * 100:.2f} after) with "
            f"{', '.join(unquantised)} in 8-bit integers. Use {models} as it is, unquantised."
        )


class _RecordingDecoder(Decoder):
    """Records all inputs of its two networks in the form that NNCF expects."""

    def __init__(self, prefill: RunNetwork, step: RunNetwork, vocabulary: Vocabulary, **others):
        self.prefill_inputs: list[dict[int, np.ndarray]] = []
        self.step_inputs: list[dict[int, np.ndarray]] = []

        def record(run: RunNetwork, records: list) -> RunNetwork:
            def record_and_run(inputs):
                records.append(dict(enumerate(inputs)))
                return run(inputs)

            return record_and_run

        prefill, step = record(prefill, self.prefill_inputs), record(step, self.step_inputs)
        super().__init__(prefill, step, vocabulary, **others)


@without_telemetry()
def _quantise(
    network: openvino.Model,
    items: Sequence,
    to_inputs: Callable | None,
    is_quantisable: Callable[[openvino.Node], bool],
) -> openvino.Model:
    """Returns a copy of the network, metadata included, whose `is_quantisable` operations compute
    in 8-bit integers. `items` set the quantisation ranges; `to_inputs` turns an item into inputs of
    the network. None: the items are its inputs."""
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    nncf.set_log_level(logging.WARNING)  # or NNCF lists every operation that stays in floats
    floats = [
        operation.get_friendly_name()
        for operation in network.get_ops()
        if not is_quantisable(operation)
    ]
    return nncf.quantize(
        network,
        nncf.Dataset(items, to_inputs),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(items),
        ignored_scope=nncf.IgnoredScope(names=floats, validate=False),
        # Weights leave one bit free, so that sums overflow on no processor: all compute the same.
        advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
    )


def _is_quantised(network: openvino.Model) -> bool:
    return any(operation.get_type_name() == "FakeQuantize" for operation in network.get_ops())


def _multiplies_by_weights(operation: openvino.Node) -> bool:
    if operation.get_type_name() != "MatMul":
        return False
    factor = operation.input_value(1).get_node()
    if factor.get_type_name() == "Convert":  # of weights stored as float16
        factor = factor.input_value(0).get_node()
    return factor.get_type_name() == "Constant"
