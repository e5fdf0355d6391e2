"""Networks of floats and photographs in, the same networks in integers of 8 bits out: smaller
files, and on processors with VNNI a third of the time to see and two thirds of the time to search,
for what it costs in captions, which is measured before it is kept.

Needs NNCF, as nothing else here does. Not about running a network: see `captioning.inference.networks`.
"""

import logging
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from captioning.data.dataset import Dataset, select
from captioning.data.feature_store import FeatureStore
from captioning.data.images import load_image
from captioning.data.vocabulary import Vocabulary
from captioning.evaluation.evaluate import evaluate
from captioning.inference.extract_features import extract_feature_maps
from captioning.inference.network_files import (
    DECODER_PREFILL,
    DECODER_STEP,
    ENCODER,
    ENCODER_ID_KEY,
    copy_network,
    image_size,
    read_encoder_id,
    read_network,
    replace_network,
)
from captioning.inference.networks import Decoder, Encoder
from captioning.inference.runtime import openvino
from captioning.paths import Paths

CALIBRATION_IMAGES = 300  # of the training images: NNCF's habit
DECODER_CALIBRATION_IMAGES = 64  # of these: each is asked about word by word
TOLERANCE = 0.005  # of CIDEr on the development split, 0.5 as people read it; chance is twice that

_DECODER = DECODER_PREFILL, DECODER_STEP


class QualityLoss(ValueError):
    """Quantised, the networks would caption worse than is allowed."""


def quantise_encoder(source: Path, image_paths: Sequence[Path], target: Path) -> None:
    """Writes the encoder of the folder `source` to the folder `target`, its weights in integers of
    8 bits, and its activations too, scaled by what they are on the images. Raises ValueError if it
    is quantised already.

    Sums stay floats: the ranges of what is added differ most, and they cost least.
    """
    network = read_network(source / ENCODER)
    if _is_quantised(network):
        raise ValueError(
            f"{source / ENCODER} is quantised already. To quantise it once more, make it anew from "
            "the weights that it was made of: `python -m captioning features --weights FILE`."
        )
    size = image_size(network)
    quantised = _quantise(
        network,
        image_paths,
        lambda path: load_image(path, size)[None],
        lambda operation: operation.get_type_name() != "Add",
    )
    if identity := read_encoder_id(network):
        quantised.set_rt_info(f"{identity} int8", ["captioning", ENCODER_ID_KEY])
    target.mkdir(parents=True, exist_ok=True)
    _save(quantised, target / ENCODER)


def quantise_decoder(
    source: Path, vocabulary: Vocabulary, features: np.ndarray, target: Path
) -> None:
    """Writes the decoder of the folder `source` to the folder `target`, its products with weights
    in integers of 8 bits, scaled by what they are while it captions `features` (images, cells,
    feature_width). All else stays in floats: normalisation would lose its small differences. Raises
    ValueError if it is quantised already; of a decoder of which one file is, that is copied.
    """
    if all(_is_quantised(read_network(source / name)) for name in _DECODER):
        raise ValueError(
            f"The decoder in {source} is quantised already. To quantise it once more, export it "
            "anew: `python -m captioning export`."
        )
    target.mkdir(parents=True, exist_ok=True)
    decoder = _RecordingDecoder.load(source, vocabulary)
    for of_image in features:  # one by one, so that each counts for as much as it says
        decoder.caption(of_image[None])
    for name, asked in zip(_DECODER, (decoder.looks, decoder.steps), strict=True):
        network = read_network(source / name)
        if _is_quantised(network):
            copy_network(source / name, target / name)
        else:
            _save(_quantise(network, asked, None, _multiplies_by_weights), target / name)


def quantise_within_tolerance(files: Paths) -> tuple[float, float]:
    """Quantises encoder and decoder in `files.models`, whichever is in floats, on training images,
    and keeps what came out if it costs no more than `TOLERANCE`. Returns the development CIDEr
    before and after. Raises `QualityLoss` if that is too much, and leaves all as it was; ValueError
    if both are quantised already, or do not belong together."""
    dataset = Dataset.load(files.dataset)
    vocabulary = Vocabulary.load(files.vocabulary)
    networks = {name: read_network(files.models / name) for name in (*_DECODER, ENCODER)}
    identity = read_encoder_id(networks[ENCODER])
    Decoder.load(files.models, vocabulary).require_encoder(identity)
    in_floats = [name for name, network in networks.items() if not _is_quantised(network)]
    if not in_floats:
        raise ValueError(
            f"Encoder and decoder in {files.models} are quantised already. To quantise them once "
            "more, make them anew: `python -m captioning features --weights FILE`, `python -m "
            "captioning export`."
        )
    train = dataset.splits["train"]
    calibration = random.Random(0).sample(train, min(CALIBRATION_IMAGES, len(train)))
    references = select(dataset.captions, dataset.splits["development"])

    def maps_of(models: Path, image_names: Sequence[str], path: Path) -> FeatureStore:
        return extract_feature_maps(Encoder(models), dataset.images, image_names, path)

    def cider(models: Path, maps_path: Path) -> float:
        """Of the networks in `models`. The maps are closed at the end: Windows removes no open
        file."""
        features = maps_of(models, list(references), maps_path)
        decoder = Decoder.load(models, vocabulary)
        return evaluate(decoder, features, references, meteor=False)[1]["CIDEr"]

    with tempfile.TemporaryDirectory(dir=files.models, prefix="saving-") as folder:
        trial = Path(folder)
        for name in networks:
            copy_network(files.models / name, trial / name)
        if ENCODER in in_floats:
            paths = [dataset.images / image_name for image_name in calibration]
            quantise_encoder(files.models, paths, trial)
        if DECODER_PREFILL in in_floats or DECODER_STEP in in_floats:
            few = calibration[:DECODER_CALIBRATION_IMAGES]
            features = np.stack(list(maps_of(trial, few, trial / "calibration.bin").values()))
            quantise_decoder(files.models, vocabulary, features, trial)
        before = cider(files.models, trial / "before.bin")
        seen_anew = ENCODER in in_floats  # the same encoder would see the same
        after = cider(trial, trial / ("after.bin" if seen_anew else "before.bin"))
        loss = before - after
        if loss > TOLERANCE:
            raise QualityLoss(
                f"{files.models} stays as it is: with {', '.join(in_floats)} in integers, "
                f"{loss * 100:.2f} of development CIDEr would be lost ({before * 100:.2f} before, "
                f"{after * 100:.2f} after). Wanted: no more than {TOLERANCE * 100:.1f}."
            )
        for name in in_floats:
            replace_network(trial / name, files.models / name)
    return before, after


class _RecordingDecoder(Decoder):
    """Remembers what its two networks are asked, in the form in which NNCF wants it."""

    def __init__(self, look: Callable, step: Callable, *others):
        self.looks: list[np.ndarray] = []
        self.steps: list[dict[int, np.ndarray]] = []

        def look_and_note(features):
            self.looks.append(features)
            return look(features)

        def step_and_note(inputs):
            self.steps.append(dict(enumerate(inputs)))
            return step(inputs)

        super().__init__(look_and_note, step_and_note, *others)


def _quantise(
    network: openvino.Model,
    items: Sequence,
    as_inputs: Callable | None,
    becomes_integers: Callable[[openvino.Node], bool],
) -> openvino.Model:
    """A copy of the network, its notes included, with the operations chosen in integers, scaled by
    what they are on the inputs that `as_inputs` makes of each of `items`, or on these themselves.
    Weights of sums over channels leave one bit free, so that no processor overflows, and all
    compute the same."""
    # Here, behind `captioning.inference.runtime`: it would send its makers a message each time, too.
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    nncf.set_log_level(logging.WARNING)  # or it lists every operation that stays a float
    ignored = [
        operation.get_friendly_name()
        for operation in network.get_ops()
        if not becomes_integers(operation)
    ]
    return nncf.quantize(
        network,
        nncf.Dataset(items, as_inputs),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(items),
        ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
    )


def _save(network: openvino.Model, path: Path) -> None:
    openvino.save_model(network, path, compress_to_fp16=True)


def _is_quantised(network: openvino.Model) -> bool:
    return any(operation.get_type_name() == "FakeQuantize" for operation in network.get_ops())


def _multiplies_by_weights(operation: openvino.Node) -> bool:
    if operation.get_type_name() != "MatMul":
        return False
    factor = operation.input_value(1).get_node()
    if factor.get_type_name() == "Convert":  # of weights that are kept in float16
        factor = factor.input_value(0).get_node()
    return factor.get_type_name() == "Constant"
