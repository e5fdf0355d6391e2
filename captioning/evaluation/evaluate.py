"""Captions the images of a split, from feature maps or photographs, and scores the captions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from captioning.data.feature_store import encoder_id_of
from captioning.errors import UserError
from captioning.evaluation.metrics import find_supported, score_captions, score_confidences
from captioning.inference.captioner import Captioner
from captioning.inference.decoder import Decoder
from captioning.inference.decoding import Caption, find_best_captions
from captioning.inference.encoder import ENCODER_BATCH_SIZE
from captioning.settings import BEAM_SEARCH, SearchSettings


def evaluate(
    decoder: Decoder,
    features: Mapping[str, np.ndarray],
    references: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    """Captions every image of `references` (image name -> reference captions as written) from its
    feature map (cells, feature_width) in `features`, and scores the captions.

    The captions are the most probable ones of a beam search. Returns the scores of
    `score_captions` without METEOR, which is slow. Raises UserError if an image has no features,
    since only whole splits are comparable, or if another encoder than the decoder's made the
    features.
    """
    decoder.require_encoder(encoder_id_of(features))
    missing = [image_name for image_name in references if image_name not in features]
    if missing:
        raise UserError(
            f"Expected features of all {len(references)} images of the split, got none of "
            f"{len(missing)}, such as {missing[0]}. Extract the features of all images first; "
            "replace images that cannot be read."
        )
    captions = find_best_captions(decoder, _batches(features, references), BEAM_SEARCH)
    texts = texts_of(dict(zip(references, captions, strict=True)))
    return score_captions(texts, references, meteor=False)


def evaluate_end_to_end(
    captioner: Captioner,
    image_folder: Path,
    references: Mapping[str, Sequence[str]],
    search: SearchSettings = SearchSettings(),
) -> tuple[dict[str, str], dict[str, float]]:
    """Captions the photographs in `image_folder` with `search`, as users do: stored feature maps,
    which `evaluate` reads, have fewer digits. Returns image name -> caption, and the scores of
    `score_captions` and, if the model has confidences, of `score_confidences`. Raises the error of
    the first photograph that cannot be read."""
    captions = caption_photographs(captioner, image_folder, references, search)
    texts = texts_of(captions)
    scores = score_captions(texts, references)
    if captioner.decoder.confidence:
        confidences = np.array([caption.confidence for caption in captions.values()])
        scores |= score_confidences(confidences, find_supported(texts, references))
    return texts, scores


def caption_photographs(
    captioner: Captioner,
    image_folder: Path,
    image_names: Iterable[str],
    search: SearchSettings = SearchSettings(),
) -> dict[str, Caption]:
    """Returns image name -> caption of the photographs in `image_folder`. Raises the error of the
    first one that cannot be read."""
    image_names = list(image_names)
    photographs = (image_folder / name for name in image_names)
    captions = captioner.caption_batch(photographs, search=search)
    return {name: best for name, (best,) in zip(image_names, captions, strict=True)}


def texts_of(captions: Mapping[str, Caption]) -> dict[str, str]:
    """Returns image name -> text of the caption."""
    return {image_name: caption.text for image_name, caption in captions.items()}


def _batches(
    features: Mapping[str, np.ndarray], image_names: Iterable[str]
) -> Iterator[np.ndarray]:
    """Yields the feature maps (images, cells, feature_width) of a few images at a time."""
    image_names = iter(image_names)
    while batch := list(islice(image_names, ENCODER_BATCH_SIZE)):
        yield np.stack([features[name] for name in batch])
