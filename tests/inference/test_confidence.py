"""The confidence in a caption, and the file that holds it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from captioning.data.vocabulary import Vocabulary
from captioning.errors import UserError
from captioning.inference.beam_search import Hypothesis
from captioning.inference.confidence import (
    NO_CONTENT,
    Confidence,
    load_confidence,
)
from captioning.inference.decoder import Decoder
from captioning.inference.decoding import find_best_captions
from captioning.paths import Paths

# Of the six ids, four are reserved; 4 has a row of its own, 5 is a rare word.
CONFIDENCE = Confidence(
    decoder="0123456789abcdef",
    coefficients=np.array([1.0, 2.0, 4.0]),
    word_rows=np.array([-1, -1, -1, -1, 0, 1], np.int32),
    weights=np.array(
        [[1.27, -0.5], [0, 0]], "float32"
    ),  # whole multiples of 0.01: 8 bits hold them
    biases=np.array([0.25, 0], "float32"),
)
METADATA = {"weights": "0123456789abcdef", "feature_width": "2"}
POOLED = np.array([1, 0.25], "float32")  # square roots 1 and 0.5


def test_the_signals_are_the_mean_log_probability_and_the_mean_prediction_of_content_words():
    for ids, expected in (
        ([4], [1, -1.5, 1.27]),  # 1.27 - 0.25 + 0.25
        ([4, 5], [1, -1.0, 0.635]),
        ([4, 2], [1, -1.0, 1.27]),  # 2: no content
    ):
        assert CONFIDENCE.signals(ids, -3.0, POOLED) == pytest.approx(expected)


def test_a_prediction_below_zero_counts_as_zero_and_so_does_a_caption_without_content_words():
    assert CONFIDENCE.signals([4], -2.0, np.array([0, 9], "float32")).tolist() == [1, -1, 0]
    assert CONFIDENCE.signals([], -2.0, POOLED).tolist() == [1, -2, 0]


def test_the_confidence_is_the_logistic_function_of_the_weighted_signals():
    logit = 1 - 3 + 4 * 1.27
    assert CONFIDENCE([4], -3.0, POOLED) == pytest.approx(1 / (1 + np.exp(-logit)))
    assert CONFIDENCE([4], -5000.0, POOLED) < 1e-300


def test_the_score_of_a_word_is_its_prediction_minus_that_of_a_neutral_word():
    scores = CONFIDENCE.score_words(POOLED)
    assert scores == pytest.approx([0, 0, 0, 0, 1.27 - 0.25, -0.25])
    assert scores.dtype == "float32"


def test_features_below_zero_count_as_zero():
    negative = CONFIDENCE.score_words(np.array([1, -4], "float32"))
    np.testing.assert_array_equal(negative, CONFIDENCE.score_words(np.array([1, 0], "float32")))


def test_what_is_saved_is_loaded(tmp_path):
    CONFIDENCE.save(tmp_path)
    loaded = load_confidence(tmp_path, METADATA, 6)
    assert loaded([4, 5], -3.0, POOLED) == pytest.approx(CONFIDENCE([4, 5], -3.0, POOLED))
    loaded.save(tmp_path / "again")
    first, second = (folder / "confidence.json" for folder in (tmp_path, tmp_path / "again"))
    assert first.read_bytes() == second.read_bytes()


def test_a_model_without_the_file_or_with_that_of_another_decoder_has_no_confidence(tmp_path):
    assert load_confidence(tmp_path, METADATA, 6) is None
    replace(CONFIDENCE, decoder="another").save(tmp_path)
    assert load_confidence(tmp_path, METADATA, 6) is None


def test_a_file_of_an_older_version_is_not_read(tmp_path):
    CONFIDENCE.save(tmp_path)
    path = tmp_path / "confidence.json"
    values = json.loads(path.read_text())
    del values["version"]
    path.write_text(json.dumps(values))
    assert load_confidence(tmp_path, METADATA, 6) is None


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "AAAA"},  # three numbers, no rows of two
        {"weights": "?"},
        {"weights": 3},
        {"scales": [0.01]},
        {"scales": [0.01, float("nan")]},
        {"biases": "no"},
        {"biases": [1e308, 0]},
        {"biases": None},
        {"coefficients": [1, 2]},
        {"coefficients": [1, 2, float("inf")]},
        {"word_rows": [-1, -1, -1, -1, 0]},
        {"word_rows": [-1, -1, -1, -1, 0, 2]},
        {"word_rows": [-2, -1, -1, -1, 0, 1]},
        {"word_rows": [-1, -1, -1, -1, 0, 1e99]},
        {"word_rows": []},
    ],
)
def test_a_damaged_value_is_an_error_that_names_the_file(change, tmp_path):
    CONFIDENCE.save(tmp_path)
    path = tmp_path / "confidence.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="got a damaged file .* and run `captioning calibrate`"):
        load_confidence(tmp_path, METADATA, 6)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b"[" * 100_000])
def test_another_file_is_an_error_that_names_it(content, tmp_path):
    (tmp_path / "confidence.json").write_bytes(content)
    with pytest.raises(UserError, match="confidence.json, got a damaged file"):
        load_confidence(tmp_path, METADATA, 6)


def test_consensus_prefers_the_words_that_the_features_of_each_image_predict(
    tiny_root, monkeypatch
):
    paths = Paths(tiny_root)
    vocabulary = Vocabulary.load(paths.vocabulary)
    decoder = Decoder.load(paths.models, vocabulary)
    word_rows = np.full(len(vocabulary), NO_CONTENT)
    word_rows[[4, 5]] = 0, 1
    weights = np.vstack([np.eye(2, 18), np.zeros((1, 18))])
    biases, coefficients = np.zeros(3, "float32"), np.zeros(3)
    decoder.confidence = Confidence("", coefficients, word_rows, weights, biases)

    def guided_search(contexts, *_):
        for *_, biases in contexts:
            yield [Hypothesis((word_id,), -1.0 + biases[word_id]) for word_id in (4, 5)]

    monkeypatch.setattr(decoder, "search_contexts", guided_search)
    features = np.zeros((3, 4, 18), "float32")
    features[[0, 1, 2], :, [1, 0, 1]] = 1  # the second word, the first, the second
    captions = find_best_captions(decoder, features)
    assert [caption.text for caption in captions] == [vocabulary.words[n] for n in (5, 4, 5)]


def test_captions_of_a_batch_have_the_confidence_of_the_image_alone(tiny_root):
    paths = Paths(tiny_root)
    decoder = Decoder.load(paths.models, Vocabulary.load(paths.vocabulary))
    features = np.random.default_rng(0).random((20, 4, 18), dtype="float32")
    captions = find_best_captions(decoder, features)
    assert all(0 < caption.confidence < 1 for caption in captions)
    assert len({caption.confidence for caption in captions}) > 10
    for image, caption in zip(features, captions, strict=True):
        (alone,) = find_best_captions(decoder, image[None])
        assert alone.confidence == pytest.approx(caption.confidence, abs=1e-5)
    decoder.confidence = None
    assert find_best_captions(decoder, features[:1])[0].confidence is None
