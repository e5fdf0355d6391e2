from captioning.settings import TrainingSettings


def test_few_images_are_seen_in_small_batches_more_often_and_many_as_those_of_flickr8k():
    assert TrainingSettings.for_data(images=6_000, captions=30_000) == TrainingSettings()
    few = TrainingSettings.for_data(images=400, captions=400)
    assert (few.batch_size, few.epochs, few.patience, few.min_word_count) == (12, 19, 9, 1)
    assert TrainingSettings.for_data(images=1, captions=5).epochs == 640
