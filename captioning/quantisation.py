"""An encoder of floats and photographs in, the same encoder in integers of 8 bits out: half the
file, about half the time on processors with VNNI, for what it costs in captions, which is measured
before it is kept.

Needs NNCF, as nothing else here does. Not about running an encoder: see `captioning.inference`.
"""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from captioning.dataset import Dataset, select
from captioning.evaluation import evaluate
from captioning.features import extract_feature_maps
from captioning.images import load_image
from captioning.inference import Decoder, Encoder
from captioning.networks import (
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
TOLERANCE = 0.005  # of CIDEr on the development split, 0.5 as people read it; chance is twice that


def quantise_encoder(source: Path, image_paths: Sequence[Path], target: Path) -> None:
    """Writes the encoder of the folder `source` to the folder `target`, its weights in integers of
    8 bits, and its activations too, scaled by what they are on the images. Raises ValueError if it
    is quantised already.

    Convolutions of one channel each, and sums of two branches, stay floats: their ranges differ
    most, and they cost least. Weights leave one bit free, so that no processor overflows, and all
    compute the same.
    """
    # Here, behind `captioning.runtime`: it would send its makers a message each time, too.
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    network = read_network(source / ENCODER)
    if any(operation.get_type_name() == "FakeQuantize" for operation in network.get_ops()):
        raise ValueError(
            f"{source / ENCODER} is quantised already. To quantise it once more, make it anew from "
            "the weights that it was made of: `python -m captioning features --weights FILE`."
        )
    size = image_size(network)
    quantised = nncf.quantize(
        network,
        nncf.Dataset(image_paths, lambda path: load_image(path, size)[None]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(image_paths),
        ignored_scope=nncf.IgnoredScope(types=["GroupConvolution", "Add"], validate=False),
        advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
    )
    if identity := read_encoder_identity(network):
        quantised.set_rt_info(f"{identity} int8", ["captioning", ENCODER_NOTE])
    target.mkdir(parents=True, exist_ok=True)
    openvino.save_model(quantised, target / ENCODER, compress_to_fp16=True)


def quantise_if_harmless(files: Files) -> tuple[float, float]:
    """Quantises the encoder in `files.models` on training images, and keeps it if it costs the
    trained decoder no more than `TOLERANCE`. Returns the development CIDEr before and after; raises
    ValueError if that is too much, and leaves the encoder as it was."""
    dataset = Dataset.load(files.dataset)
    train = dataset.splits["train"]
    chosen = random.Random(0).sample(train, min(CALIBRATION_IMAGES, len(train)))
    references = select(dataset.captions, dataset.splits["development"])
    decoder = Decoder.load(files.models, Vocabulary.load(files.vocabulary))

    def cider(models: Path, maps_path: Path) -> float:
        """Of the encoder in `models`. Its maps are closed at the end: Windows removes no open
        file."""
        maps = extract_feature_maps(Encoder(models), dataset.images, list(references), maps_path)
        return evaluate(decoder, maps, references, meteor=False)[1]["CIDEr"]

    with tempfile.TemporaryDirectory(dir=files.models, prefix="saving-") as folder:
        quantised = Path(folder)
        quantise_encoder(files.models, [dataset.images / name for name in chosen], quantised)
        before = cider(files.models, quantised / "before.bin")
        after = cider(quantised, quantised / "after.bin")
        loss = before - after
        if loss > TOLERANCE:
            raise ValueError(
                f"The encoder stays as it is: quantised, it would lose {loss * 100:.2f} of "
                f"development CIDEr ({before * 100:.2f} before, {after * 100:.2f} after). Wanted: "
                f"no more than {TOLERANCE * 100:.1f}."
            )
        replace_network(quantised / ENCODER, files.models / ENCODER)
    return before, after
