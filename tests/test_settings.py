from math import inf, nan

import pytest

from captioning.models.decoders import BUILDERS
from captioning.settings import DECODERS, SearchSettings, TrainingSettings


def test_few_images_are_seen_in_small_batches_more_often_and_many_as_those_of_flickr8k():
    assert TrainingSettings.for_data(images=6_000, captions=30_000) == TrainingSettings()
    few = TrainingSettings.for_data(images=400, captions=400)
    assert (few.batch_size, few.epochs, few.patience, few.min_word_count) == (12, 19, 9, 1)
    assert TrainingSettings.for_data(images=1, captions=5).epochs == 640


@pytest.mark.parametrize(
    "wrong",
    [
        {"members": 0}, {"batch_size": 0}, {"epochs": 0}, {"student_epochs": -1},
        {"fine_tuning_epochs": 0}, {"dropout": 1.0}, {"student_dropout": 1},
        {"self_critical_dropout": -0.1}, {"samples": 1}, {"samples": 101}, {"units": 0},
        {"embedding_units": 0}, {"heads": 0}, {"patience": 0}, {"label_smoothing": 1.5},
        {"self_critical_momentum": 1.0}, {"learning_rate": 0.0}, {"learning_rate": nan},
        {"fine_tuning_learning_rate": inf}, {"self_critical_learning_rate": -1e-5},
        {"clip_norm": 0.0}, {"weight_decay": -0.1}, {"bleu_weight": nan}, {"warmup_epochs": 4},
        {"self_critical_epochs": -1}, {"decoder": "transformer"}, {"heads": 513},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_trained_with_are_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"^Wanted: {name} .* Received: {value}"):
        TrainingSettings(**wrong)


def test_heads_matter_to_the_decoder_with_attention_alone():
    assert TrainingSettings(decoder="merge", heads=513).heads == 513


@pytest.mark.parametrize(
    "wrong", [{"beam_width": 0}, {"beam_width": 101}, {"length_normalisation": 1.1}]
)
def test_a_search_that_cannot_be_made_is_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"^Wanted: {name} from .* Received: {value}"):
        SearchSettings(**wrong)


def test_every_decoder_that_may_be_chosen_can_be_built():
    assert set(DECODERS) == set(BUILDERS)


def test_a_student_learns_for_as_long_and_with_as_much_dropout_as_is_its_own():
    settings = TrainingSettings(epochs=3, student_epochs=5, dropout=0.4, student_dropout=0.1)
    student = settings.for_student()
    assert (student.epochs, student.dropout, student.units) == (5, 0.1, 512)
