"""Networks of floats and photographs in, the same networks in integers of 8 bits out: half the
files, encoder and search about twice as fast on processors with VNNI, for what it costs in
captions, which is measured before it is kept.

Needs NNCF, as nothing else here does. Not about running a network: see `captioning.inference`.
"""

import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from captioning.dataset import Dataset, select
from captioning.evaluation import evaluate
from captioning.feature_maps import FeatureMaps
from captioning.features import extract_feature_maps
from captioning.images import load_image
from captioning.inference import Decoder, Encoder
from captioning.networks import (
    DECODER_LOOK,
    DECODER_STEP,
    ENCODER,
    ENCODER_NOTE,
    image_size,
    read_encoder_identity,
    read_network,
    replace_network,
)
from captioning.runtime import openvino
from captioning.settings import Files
from captioning.text import Vocabulary

CALIBRATION_IMAGES = 300  # of the training images: NNCF's habit
CAPTIONED_IMAGES = 64  # of these, to calibrate the decoder: they are searched word by word
TOLERANCE = 0.005  # of CIDEr on the development split, 0.5 as people read it; chance is twice that


def quantise_encoder(source: Path, image_paths: Sequence[Path], target: Path) -> None:
    """Writes the encoder of the folder `source` to the folder `target`, its weights in integers of
    8 bits, and its activations too, scaled by what they are on the images. Raises ValueError if it
    is quantised already.

    Convolutions of one channel each, and sums of two branches, stay floats: their ranges differ
    most, and they cost least.
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
        [load_image(path, size)[None] for path in image_paths],
        lambda operation: operation.get_type_name() not in ("GroupConvolution", "Add"),
    )
    if identity := read_encoder_identity(network):
        quantised.set_rt_info(f"{identity} int8", ["captioning", ENCODER_NOTE])
    _save(quantised, target / ENCODER)


def quantise_decoder(
    source: Path, vocabulary: Vocabulary, features: np.ndarray, target: Path
) -> None:
    """The same of the decoder, scaled by what passes through it while it captions `features`
    (images, cells, feature_width). Raises ValueError if it is quantised already.

    Products with weights alone become integers: normalisation would lose its small differences.
    """
    look, step = (read_network(source / name) for name in (DECODER_LOOK, DECODER_STEP))
    if _is_quantised(look) or _is_quantised(step):
        raise ValueError(
            f"The decoder in {source} is quantised already. To quantise it once more, export it "
            "anew: `python -m captioning export`."
        )
    decoder = _Watched.load(source, vocabulary)
    decoder.caption(features)
    _save(_quantise(look, decoder.looks, _multiplies_by_weights), target / DECODER_LOOK)
    _save(_quantise(step, decoder.steps, _multiplies_by_weights), target / DECODER_STEP)


def quantise_if_harmless(files: Files) -> tuple[float, float]:
    """Quantises encoder and decoder in `files.models`, whichever is in floats, on training images,
    and keeps what came out if it costs no more than `TOLERANCE`. Returns the development CIDEr
    before and after; raises ValueError if that is too much, and leaves both as they were, or if
    both are quantised already."""
    dataset = Dataset.load(files.dataset)
    train = dataset.splits["train"]
    chosen = random.Random(0).sample(train, min(CALIBRATION_IMAGES, len(train)))
    references = select(dataset.captions, dataset.splits["development"])
    vocabulary = Vocabulary.load(files.vocabulary)

    def see(encoder: Path, image_names: Sequence[str], maps: Path) -> FeatureMaps:
        return extract_feature_maps(Encoder(encoder), dataset.images, image_names, maps)

    def cider(encoder: Path, decoder: Path, maps: Path) -> float:
        """Of the networks in two folders. The maps are closed at the end: Windows removes no open
        file."""
        seen = see(encoder, list(references), maps)
        loaded = Decoder.load(decoder, vocabulary)
        return evaluate(loaded, seen, references, meteor=False)[1]["CIDEr"]

    encoder = decoder = files.models
    with tempfile.TemporaryDirectory(dir=files.models, prefix="saving-") as folder:
        quantised = Path(folder)
        if not _is_quantised(read_network(files.models / ENCODER)):
            encoder = quantised
            paths = [dataset.images / image_name for image_name in chosen]
            quantise_encoder(files.models, paths, quantised)
        if not _is_quantised(read_network(files.models / DECODER_STEP)):
            decoder = quantised
            maps = see(encoder, chosen[:CAPTIONED_IMAGES], quantised / "calibration.bin")
            quantise_decoder(files.models, vocabulary, np.stack(list(maps.values())), quantised)
            del maps
        if encoder == decoder == files.models:
            raise ValueError(
                f"Encoder and decoder in {files.models} are quantised already. To quantise them "
                "once more, make them anew: `python -m captioning features --weights FILE`, "
                "`python -m captioning export`."
            )
        before = cider(files.models, files.models, quantised / "before.bin")
        after = cider(encoder, decoder, quantised / "after.bin")
        loss = before - after
        if loss > TOLERANCE:
            raise ValueError(
                f"Encoder and decoder stay as they are: quantised, they would lose "
                f"{loss * 100:.2f} of development CIDEr ({before * 100:.2f} before, "
                f"{after * 100:.2f} after). Wanted: no more than {TOLERANCE * 100:.1f}."
            )
        for network in quantised.glob("*.xml"):
            replace_network(network, files.models / network.name)
    return before, after


class _Watched(Decoder):
    """Remembers what its networks are asked, by the numbers of their inputs."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.looks: list[dict[int, np.ndarray]] = []
        self.steps: list[dict[int, np.ndarray]] = []

    def look(self, features):
        self.looks.append({0: features.astype("float32")})
        return super().look(features)

    def step_with_attention(self, ids, state, seen):
        self.steps.append(dict(enumerate([ids.astype("int32"), *state, *seen])))
        return super().step_with_attention(ids, state, seen)


def _quantise(
    network: openvino.Model,
    inputs: Sequence,
    becomes_integers: Callable[[openvino.Node], bool],
) -> openvino.Model:
    """The network with the operations chosen in integers, scaled by what they are on `inputs`, and
    what is noted in it. Weights leave one bit free, so that no processor overflows, and all compute
    the same."""
    # Here, behind `captioning.runtime`: it would send its makers a message each time, too.
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    left = [
        operation.get_friendly_name()
        for operation in network.get_ops()
        if not becomes_integers(operation)
    ]
    return nncf.quantize(
        network,
        nncf.Dataset(inputs),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(names=left, validate=False),
        advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
    )


def _save(network: openvino.Model, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
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
