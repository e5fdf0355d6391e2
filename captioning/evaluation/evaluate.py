"""Captions a split and scores the captions: from feature maps, or end to end from photographs."""

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
    """Captions every image of `references` (image name -> reference captions as written) from its
    feature map (cells, feature_width), and scores the captions.

    Returns image name -> caption, and the scores of `score_captions`. Raises ValueError if an image
    has no features, since only whole splits are comparable, or if the decoder was trained on
    features of another encoder.
    """
    decoder.require_encoder(encoder_id_of(features))
    missing = [image_name for image_name in references if image_name not in features]
    if missing:
        raise ValueError(
            f"Expected features of all {len(references)} images of the split, but {len(missing)} "
            f"have none, such as {missing[0]}. Extract the features of all images first; replace "
            "files that cannot be read."
        )
    found = decoder.caption(_batches(features, references), search)
    captions = {name: caption.text for name, caption in zip(references, found, strict=True)}
    return captions, score_captions(captions, references, meteor)


def evaluate_end_to_end(
    captioner: Captioner,
    folder: Path,
    references: Mapping[str, Sequence[str]],
    search: SearchSettings = SearchSettings(),
) -> tuple[dict[str, str], dict[str, float]]:
    """As `evaluate`, but from the photographs in `folder`, as users caption theirs: the feature
    maps for training are stored with fewer digits. Raises the error of the first photograph that
    cannot be read."""
    captions = {}
    results = captioner.stream((folder / name for name in references), search=search)
    for image_name, (_, result) in zip(references, results, strict=True):
        if isinstance(result, Exception):
            raise result
        captions[image_name] = result[0].text
    return captions, score_captions(captions, references)


def _batches(
    features: Mapping[str, np.ndarray], image_names: Iterable[str]
) -> Iterator[np.ndarray]:
    """Feature maps (images, cells, feature_width) of a few images at a time."""
    image_names = iter(image_names)
    while batch := list(islice(image_names, ENCODER_BATCH_SIZE)):
        yield np.stack([features[name] for name in batch])
