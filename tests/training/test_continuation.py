"""A caption model of a finished run continues, with rewards only."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from captioning.data.vocabulary import Vocabulary
from captioning.settings import TrainingSettings
from captioning.training.continuation import number_continuation
from captioning.training.train import train

pytestmark = pytest.mark.usefixtures("float32")

SETTINGS = TrainingSettings(
    decoder="merge", min_word_count=1, embedding_units=8, units=12, batch_size=8, epochs=1,
    self_critical_epochs=0, self_critical_dropout=0.0, samples=2, members=1, student=False,
)  # fmt: skip
WITH_REWARDS = replace(SETTINGS, self_critical_epochs=1)


@pytest.fixture(scope="module")
def finished(float32, tiny_data, vocabulary, tmp_path_factory):
    """A finished run: its folder, its model and its history."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, *train(tiny_data, vocabulary, SETTINGS, folder)


def largest_difference(model, other):
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    return max(np.abs(weights - others).max() for weights, others in pairs)


@pytest.mark.slow
def test_the_model_continues_and_the_history_includes_the_epochs_before(
    tiny_data, vocabulary, finished, tmp_path
):
    start, started, past = finished
    model, history = train(tiny_data, vocabulary, WITH_REWARDS, tmp_path, start)
    assert history[:-1] == past
    assert history[-1]["stage"] == "self-critical"
    assert history[-1]["continuation"] == 1
    assert 0 < largest_difference(model, started) < 0.01
    assert train(tiny_data, vocabulary, WITH_REWARDS, tmp_path, start)[1] == history
    _, again = train(tiny_data, vocabulary, WITH_REWARDS, tmp_path / "again", tmp_path)
    assert again[:-1] == history
    assert again[-1]["continuation"] == 2


def test_without_rewards_the_start_is_the_result(tiny_data, vocabulary, finished, tmp_path):
    start, started, past = finished
    model, history = train(tiny_data, vocabulary, SETTINGS, tmp_path, start)
    assert history == past
    assert largest_difference(model, started) == 0


def test_a_run_with_another_start_or_none_is_not_resumed(tiny_data, vocabulary, finished, tmp_path):
    start, *_ = finished
    copy = shutil.copytree(start, tmp_path / "copy")
    with pytest.raises(ValueError, match="another run: start None instead of"):
        train(tiny_data, vocabulary, SETTINGS, copy, start)
    train(tiny_data, vocabulary, SETTINGS, tmp_path / "continued", start)
    with pytest.raises(ValueError, match="another run: start .* instead of None"):
        train(tiny_data, vocabulary, SETTINGS, tmp_path / "continued")


@pytest.mark.parametrize("change", ["words", "units"])
def test_a_caption_model_that_does_not_fit_is_no_start(
    tiny_data, vocabulary, finished, tmp_path, change
):
    settings = SETTINGS
    if change == "words":
        vocabulary = Vocabulary(vocabulary.words[:3:-1])  # as many as before
    else:
        settings = replace(SETTINGS, units=13)
    with pytest.raises(ValueError, match="Expected a single caption model"):
        train(tiny_data, vocabulary, settings, tmp_path, finished[0])


def test_an_ensemble_is_no_start(tiny_data, vocabulary, tmp_path):
    train(tiny_data, vocabulary, replace(SETTINGS, members=2), tmp_path / "two")
    with pytest.raises(ValueError, match="Expected a single caption model.*got 2 with these words"):
        train(tiny_data, vocabulary, SETTINGS, tmp_path / "one", tmp_path / "two")


def test_a_start_without_a_model_is_an_error(tiny_data, vocabulary, tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected the caption model of a finished run"):
        train(tiny_data, vocabulary, SETTINGS, tmp_path / "models", tmp_path)


def test_the_features_are_those_of_the_fine_tuned_encoder(
    tiny_data, vocabulary, finished, tmp_path
):
    start = shutil.copytree(finished[0], tmp_path / "start")
    record = json.loads((start / "training.json").read_text(encoding="utf-8"))
    record |= {"encoder": "tiny 01", "fine-tuned encoder": "tiny 02"}
    (start / "training.json").write_text(json.dumps(record), encoding="utf-8")
    data = replace(tiny_data, encoder_id="tiny 01")
    with pytest.raises(ValueError, match="Expected the features of tiny 02.*got those of tiny 01"):
        train(data, vocabulary, SETTINGS, tmp_path / "a", start)
    train(replace(data, encoder_id="tiny 02"), vocabulary, SETTINGS, tmp_path / "b", start)


def test_a_start_that_was_not_fine_tuned_gets_no_advice_on_fine_tuned_weights(
    tiny_data, vocabulary, finished, tmp_path
):
    start = shutil.copytree(finished[0], tmp_path / "start")
    record = json.loads((start / "training.json").read_text(encoding="utf-8"))
    record |= {"encoder": "tiny 01"}
    (start / "training.json").write_text(json.dumps(record), encoding="utf-8")
    data = replace(tiny_data, encoder_id="tiny 02")
    with pytest.raises(ValueError, match="with that encoder, in another --root[.]$"):
        train(data, vocabulary, SETTINGS, tmp_path / "models", start)


def test_a_continuation_of_a_model_without_history_is_the_first():
    epoch = {"stage": "self-critical"}
    assert number_continuation([epoch], []) == [{**epoch, "continuation": 1}]
