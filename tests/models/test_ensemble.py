import keras
import numpy as np
import pytest

from captioning.data.vocabulary import Vocabulary
from captioning.export.keras_to_openvino import export_decoder, to_decoder
from captioning.inference.decoder import Decoder
from captioning.models.caption_model import (
    build_caption_model,
    build_ensemble,
    ensemble_members,
)
from captioning.settings import TrainingSettings

VOCABULARY = Vocabulary([f"word{number}" for number in range(12)])


def build_member(decoder, seed, units=12):
    keras.utils.set_random_seed(seed)
    settings = TrainingSettings(decoder=decoder, embedding_units=8, units=units, heads=3)
    return build_caption_model(len(VOCABULARY), 5, settings)


@pytest.fixture(scope="module", params=["attention", "merge"])
def members(request):
    return [build_member(request.param, seed=0), build_member(request.param, seed=1, units=15)]


@pytest.fixture(scope="module")
def ensemble(members):
    return build_ensemble(members)


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")


def predict_log_probs(model, features, words):
    logits = model.predict_on_batch({"features": features, "words": words})
    return keras.ops.convert_to_numpy(keras.ops.log_softmax(logits))


WORDS = np.array([[[1, 4, 9]], [[1, 5, 6]], [[1, 15, 7]]], "int32")


def test_an_ensemble_takes_the_mean_of_probabilities(ensemble, members, features):
    first, second = (np.exp(predict_log_probs(member, features, WORDS)) for member in members)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(
        np.exp(predict_log_probs(ensemble, features, WORDS)), (first + second) / 2, atol=1e-6
    )


def test_a_single_member_is_its_own_ensemble(members):
    assert build_ensemble(members[:1]) is members[0]
    assert ensemble_members(members[0]) == [members[0]]


def test_an_ensemble_is_searched_as_it_scores(ensemble, features):
    """The sum of the log-probabilities of single words is that of the whole caption."""
    for image, (best, *_) in enumerate(to_decoder(ensemble, VOCABULARY, 6).search(features)):
        words = np.array([[[1, *best.ids]]])
        log_probs = predict_log_probs(ensemble, features[image : image + 1], words)[0]
        generated = [*best.ids, *([2] if best.finished else [])]
        expected = sum(log_probs[position, word] for position, word in enumerate(generated))
        assert best.log_prob == pytest.approx(expected, abs=1e-4)


def test_a_saved_ensemble_scores_as_before_and_has_its_members(ensemble, features, tmp_path):
    ensemble.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(
        predict_log_probs(loaded, features, WORDS), predict_log_probs(ensemble, features, WORDS)
    )
    assert len(ensemble_members(loaded)) == 2


def test_an_exported_ensemble_generates_the_captions_of_the_keras_model(
    ensemble, features, tmp_path
):
    export_decoder(ensemble, VOCABULARY, 6, tmp_path)
    exported = Decoder.load(tmp_path, VOCABULARY)
    in_memory = to_decoder(ensemble, VOCABULARY, 6)
    for expected, hypotheses in zip(
        in_memory.search(features), exported.search(features), strict=True
    ):
        assert [hypothesis.ids for hypothesis in hypotheses] == [
            hypothesis.ids for hypothesis in expected
        ]
        assert [hypothesis.log_prob for hypothesis in hypotheses] == pytest.approx(
            [hypothesis.log_prob for hypothesis in expected], abs=0.02
        )  # float16 weights


def test_the_attention_of_an_ensemble_is_the_mean_of_its_members(features):
    members = [build_member("attention", seed) for seed in range(3)]

    def compute_attention(model):
        decoder = to_decoder(model, VOCABULARY, 6)
        ids, state = np.full((3, 1), 7), decoder.initial_state(3)
        return decoder.step_with_attention(ids, state, decoder.prefill(features))[2]

    expected = np.mean([compute_attention(member) for member in members], axis=0)
    np.testing.assert_allclose(compute_attention(build_ensemble(members)), expected, atol=1e-6)
