"""A split in, captions of a decoder and their scores out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from captioning.data.feature_store import encoder_id_of
from captioning.evaluation.metrics import score_captions
from captioning.inference.captioner import Captioner
from captioning.inference.networks import ENCODER_BATCH_SIZE, Decoder
from captioning.settings import SearchSettings


def evaluate(
    decoder: Decoder,
    features: Mapping[str, np.ndarray],
    references: Mapping[str, Sequence[str]],
    search: SearchSettings = SearchSettings(),
    meteor: bool = True,
) -> tuple[dict[str, str], dict[str, float]]:
    """Captions every image of `references` (image name -> captions as written) and scores them.

    Returns image name -> caption, and the scores of `score_captions`. Raises ValueError if an image
    has no features, since a split is scored whole or not at all, or if the decoder was trained on
    features of another encoder.
    """
    decoder.require_encoder(encoder_id_of(features))
    missing = [image_name for image_name in references if image_name not in features]
    if missing:
        raise ValueError(
            f"A split is scored whole, but {len(missing)} of its {len(references)} images have no "
            f"features, among them {missing[0]}. Extract the features of all images first; if that "
            "left some out, mend their files."
        )
    found = decoder.caption(_blocks(features, references), search)
    captions = {name: caption.text for name, caption in zip(references, found, strict=True)}
    return captions, score_captions(captions, references, meteor)


def _blocks(features: Mapping[str, np.ndarray], image_names: Iterable[str]) -> Iterator[np.ndarray]:
    """Feature maps (images, cells, feature_width) of some of the images after the other."""
    image_names = iter(image_names)
    while some := list(islice(image_names, ENCODER_BATCH_SIZE)):
        yield np.stack([features[name] for name in some])


def evaluate_end_to_end(
    captioner: Captioner,
    folder: Path,
    references: Mapping[str, Sequence[str]],
    search: SearchSettings = SearchSettings(),
) -> tuple[dict[str, str], dict[str, float]]:
    """As `evaluate`, but from the photographs in `folder`, as anybody's are captioned: feature maps
    for training are rounded more coarsely. Raises what is wrong with one that cannot be read."""
    paths = {folder / image_name: image_name for image_name in references}
    captions = {}
    for path, found in captioner.caption_files(paths, search):
        if isinstance(found, Exception):
            raise found
        captions[paths[path]] = found.text
    return captions, score_captions(captions, references)
