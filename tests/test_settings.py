from dataclasses import fields
from math import inf, nan

import numpy as np
import pytest

from captioning.settings import SearchSettings, TrainingSettings

ALL = (SearchSettings, TrainingSettings)


def test_small_data_sets_have_smaller_batches_and_more_epochs():
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
        {"clip_norm": 0.0}, {"weight_decay": -0.1}, {"bleu_weight": nan}, {"warmup_epochs": 6},
        {"warmup_epochs": -0.5}, {"self_critical_epochs": -1}, {"decoder": "transformer"},
        {"heads": 513}, {"min_word_count": 0}, {"seed": -1},
        {"soft_target_share": 1.1}, {"fine_tuning_soft_target_share": -0.1},
        {"epochs": 2.5}, {"epochs": "9"}, {"epochs": True}, {"epochs": None},
        {"dropout": "0.4"}, {"dropout": False}, {"student": 1}, {"decoder": ["merge"]},
    ],
)  # fmt: skip
def test_invalid_training_settings_are_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError) as caught:
        TrainingSettings(**wrong)
    assert str(caught.value).startswith(f"Expected {name} to be ")
    assert str(caught.value).endswith(f", got {value!r}.")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "Expected epochs to be a whole number of 1 or more, got 0."),
        ({"clip_norm": 0.0}, "Expected clip_norm to be a number above 0, got 0.0."),
        ({"dropout": 1.0}, "Expected dropout to be a number from 0 to less than 1, got 1.0."),
        ({"student": 1}, "Expected student to be True or False, got 1."),
        ({"decoder": "rnn"}, "Expected decoder to be a name (attention or merge), got 'rnn'."),
        ({"heads": 513}, "Expected heads to be at most units, 512, got 513."),
        ({"warmup_epochs": 6}, "Expected warmup_epochs to be less than 6, the fewest epochs of a"),
    ],
)
def test_the_message_states_the_expected_value(wrong, message):
    with pytest.raises(ValueError) as caught:
        TrainingSettings(**wrong)
    assert str(caught.value).startswith(message)


def test_heads_are_checked_only_for_the_decoder_with_attention():
    assert TrainingSettings(decoder="merge", heads=513).heads == 513


@pytest.mark.parametrize("value", [0, 101, 2.5, "3", True])
def test_an_invalid_beam_width_is_refused(value):
    with pytest.raises(ValueError) as caught:
        SearchSettings(value)
    assert str(caught.value) == (
        f"Expected beam_width to be a whole number from 1 to 100, got {value!r}."
    )


@pytest.mark.parametrize("value", [-0.1, 1.1, nan])
def test_an_invalid_length_normalisation_is_refused(value):
    with pytest.raises(ValueError, match="length_normalisation to be a number from 0 to 1, got"):
        SearchSettings(length_normalisation=value)


def test_numpy_numbers_are_accepted():
    assert SearchSettings(np.int64(5), np.float32(0.5)).beam_width == 5


@pytest.mark.parametrize("settings", ALL)
def test_every_setting_has_a_default_and_a_check(settings):
    settings()
    assert all("check" in field.metadata for field in fields(settings))


def test_each_decoding_has_its_usual_numbers_unless_others_are_given():
    assert SearchSettings() == SearchSettings(None, None) == SearchSettings(12, 0.9, "consensus")
    assert SearchSettings(decoding="beam") == SearchSettings(3, 0.7, "beam")
    assert SearchSettings(5, decoding="beam") == SearchSettings(5, 0.7, "beam")
    assert SearchSettings(length_normalisation=0) == SearchSettings(12, 0, "consensus")


def test_a_number_beyond_all_floats_is_refused():
    with pytest.raises(ValueError, match="Expected beam_width to be a whole number from 1 to 100"):
        SearchSettings(beam_width=10**400)
