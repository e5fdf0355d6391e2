import pytest

from captioning.settings import TrainingSettings


def test_few_images_are_seen_in_small_batches_more_often_and_many_as_those_of_flickr8k():
    assert TrainingSettings.for_data(images=6_000, captions=30_000) == TrainingSettings()
    few = TrainingSettings.for_data(images=400, captions=400)
    assert (few.batch_size, few.epochs, few.patience, few.min_word_count) == (12, 19, 9, 1)
    assert TrainingSettings.for_data(images=1, captions=5).epochs == 640


@pytest.mark.parametrize(
    "wrong",
    [{"members": 0}, {"dropout": 1.0}, {"student_dropout": 1}, {"self_critical_dropout": 1}],
)
def test_settings_that_cannot_be_trained_with_are_refused(wrong):
    (value,) = wrong.values()
    with pytest.raises(ValueError, match=f"less than 1. Received: .*={value}"):
        TrainingSettings(**wrong)
