import numpy as np
import pytest

from captioning.data.dataset import select
from captioning.data.flickr8k import read_captions, read_splits
from captioning.data.images import load_image
from captioning.evaluation.evaluate import evaluate, evaluate_end_to_end, texts_of
from captioning.inference.captioner import Captioner
from captioning.inference.decoding import find_best_captions
from captioning.paths import Paths
from captioning.settings import BEAM_SEARCH


@pytest.fixture(scope="module")
def captioner(tiny_root):
    return Captioner.load(tiny_root)


@pytest.fixture(scope="module")
def references(tiny_root):
    texts = Paths(tiny_root).texts
    return select(read_captions(texts / "Flickr8k.token.txt"), read_splits(texts)["test"])


def test_end_to_end_gives_the_captions_of_the_features_of_the_same_photographs(
    captioner, references, tiny_root, monkeypatch
):
    monkeypatch.setattr("captioning.evaluation.metrics._java_runs", lambda: False)  # METEOR is slow
    folder = Paths(tiny_root).images
    images = np.stack([load_image(folder / name, (32, 48)) for name in references])
    features = dict(zip(references, captioner.encoder(images), strict=True))
    scores = evaluate(captioner.decoder, features, references)
    maps = np.stack(list(features.values()))
    best = find_best_captions(captioner.decoder, [maps], BEAM_SEARCH)
    expected = texts_of(dict(zip(references, best, strict=True)))
    captions, end_to_end_scores = evaluate_end_to_end(captioner, folder, references, BEAM_SEARCH)
    assert list(captions) == list(references)
    assert captions == expected
    confidence_scores = {
        name: end_to_end_scores.pop(name) for name in ("confidence AUROC", "calibration error")
    }
    assert all(0 <= score <= 1 for score in confidence_scores.values())
    assert end_to_end_scores == scores


def test_a_split_with_missing_features_is_refused(captioner, references):
    features = {name: np.zeros((4, 18), "float32") for name in list(references)[1:]}
    missing = next(iter(references))
    with pytest.raises(
        ValueError, match=f"of all 6 images of the split, got none of 1, such as {missing}"
    ):
        evaluate(captioner.decoder, features, references)


def test_a_photograph_that_cannot_be_read_stops_the_scoring(captioner, references, tmp_path):
    for name in references:
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(ValueError, match=f"{next(iter(references))} cannot be read"):
        evaluate_end_to_end(captioner, tmp_path, references)
