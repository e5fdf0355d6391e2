from captioning.settings import TrainingSettings


def test_few_captions_are_read_in_small_batches_more_often_and_many_as_those_of_flickr8k():
    assert TrainingSettings.for_captions(30_000) == TrainingSettings()
    few = TrainingSettings.for_captions(400)
    assert (few.batch_size, few.epochs, few.patience, few.min_word_count) == (12, 18, 9, 1)
    assert TrainingSettings.for_captions(1).epochs == 640
