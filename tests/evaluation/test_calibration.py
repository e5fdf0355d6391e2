"""The fit of the confidence in captions."""

import shutil

import numpy as np
import pytest

from captioning.data.pickles import load_vectors, save_pickle
from captioning.data.vocabulary import Vocabulary
from captioning.errors import UserError
from captioning.evaluation.calibration import (
    calibrate_confidence,
    fit_logistic_regression,
    fit_words,
)
from captioning.evaluation.evaluate import caption_photographs
from captioning.inference.captioner import Captioner
from captioning.inference.confidence import Confidence
from captioning.inference.decoding import Caption
from captioning.paths import Paths

WORDS = ("dog", "cat", "the", "zebra")


@pytest.fixture(scope="module")
def fitted():
    """A world in which the first feature shows dogs and the second cats. The decoder always finds a
    dog."""
    random = np.random.default_rng(0)
    is_dog = random.random(400) < 0.5
    features, references = {}, {}
    for number, dog in enumerate(is_dog):
        noise = random.normal(0, 0.2, 2)
        features[f"{number}.jpg"] = (np.array([dog, not dog]) + noise).astype("float32")
        references[f"{number}.jpg"] = ["The dog ." if dog else "A cat ."] * 4
    names = list(features)
    captions = {name: Caption("the dog", -3.0) for name in names[200:]}
    train = {name: references[name] for name in names[:200]}
    vocabulary = Vocabulary(WORDS)
    words = fit_words("fingerprint", vocabulary, features, train)
    return fit_logistic_regression(words, vocabulary, features, captions, references), vocabulary


def test_the_confidence_follows_the_image_where_the_decoder_does_not(fitted):
    confidence, vocabulary = fitted
    ids = vocabulary.encode("the dog")[1:-1]
    on_dogs = confidence(ids, -3.0, np.array([1, 0], "float32"))
    on_cats = confidence(ids, -3.0, np.array([0, 1], "float32"))
    assert on_dogs > 0.95
    assert on_cats < 0.05


def test_a_word_is_predicted_by_the_share_of_people_who_mention_it(fitted):
    confidence, vocabulary = fitted
    for features, dog, cat in (([1, 0], 1, 0), ([0, 1], 0, 1)):
        for word, share in (("dog", dog), ("cat", cat)):
            ids = vocabulary.encode(word)[1:-1]
            mentioned = confidence.signals(ids, 0.0, np.array(features, "float32"))[2]
            assert mentioned == pytest.approx(share, abs=0.25)


def test_function_words_are_left_out_and_rare_words_count_as_hardly_mentioned(fitted):
    confidence, vocabulary = fitted
    pooled = np.array([1, 0], "float32")
    dog, with_the, with_zebra = (
        confidence.signals(vocabulary.encode(caption)[1:-1], -1.0, pooled)[2]
        for caption in ("dog", "the dog", "dog zebra")
    )
    assert with_the == dog
    assert with_zebra == pytest.approx((dog + 0.1) / 2)


@pytest.mark.parametrize("text", ["the dog", "the zebra"])  # all right, all wrong
def test_captions_that_are_all_right_or_all_wrong_give_a_finite_confidence(text):
    names = [f"{number}.jpg" for number in range(8)]
    features = {name: np.ones(2, "float32") for name in names}
    references = {name: ["The dog ."] for name in names}
    captions = {name: Caption(text, -1.0) for name in names}
    vocabulary = Vocabulary(WORDS)
    words = fit_words("", vocabulary, features, references)
    confidence = fit_logistic_regression(words, vocabulary, features, captions, references)
    value = confidence(vocabulary.encode(text)[1:-1], -1.0, features["0.jpg"])
    assert value == pytest.approx(0.9 if text == "the dog" else 0.1, abs=0.01)  # Platt: 9 of 10


def test_the_step_writes_the_confidence_of_this_decoder(tiny_root):
    paths = Paths(tiny_root)
    photographs = sorted(paths.images.glob("*.jpg"))
    before = Captioner.load(tiny_root).caption_batch(photographs)
    (paths.models / "confidence.json").unlink()
    assert calibrate_confidence(paths) == 6  # a tenth of six images is none
    captioner = Captioner.load(tiny_root)
    assert captioner.decoder.confidence.decoder == captioner.decoder.fingerprint
    after = captioner.caption_batch(photographs)
    assert [best.confidence for (best,) in after] == pytest.approx(
        [best.confidence for (best,) in before], abs=0.02
    )


def test_the_captions_of_the_fit_are_chosen_with_the_predicted_mentions(tiny_root, monkeypatch):
    confidences = []

    def record(captioner, *arguments):
        confidences.append(captioner.decoder.confidence)
        return caption_photographs(captioner, *arguments)

    monkeypatch.setattr("captioning.evaluation.calibration.caption_photographs", record)
    monkeypatch.setattr(Confidence, "save", lambda *_: None)
    calibrate_confidence(Paths(tiny_root))
    (confidence,) = confidences
    assert confidence.weights.any()
    assert not confidence.coefficients.any()  # they are fitted on these captions


def test_an_image_without_features_is_named(tiny_root, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(tiny_root, root)
    paths = Paths(root)
    name = "003_drawing.jpg"
    features = load_vectors(paths.features)
    del features[name]
    save_pickle(paths.features, features)
    with pytest.raises(UserError, match=f"got none of 1, such as {name}. Run `captioning feat"):
        calibrate_confidence(paths)
