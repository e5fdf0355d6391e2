import threading

import keras
import numpy as np
import pytest

from captioning.training.batches import CaptionBatches, Variant, pad, separate_captions

CAPTIONS = {"dog.jpg": [[1, 7, 8, 2], [1, 9, 2]], "cat.jpg": [[1, 5, 6, 7, 8, 2]]}
FEATURES = {
    "cat.jpg": np.array([[3.0, 4.0]], "float16"),
    "dog.jpg": np.array([[1.0, 2.0]], "float16"),
    "unused.jpg": np.array([[9.0, 9.0]], "float16"),
}


def make_variant(images, captions=5, seed=0):
    """Encoded captions of random lengths, and feature maps that hold the number of the image."""
    random = np.random.default_rng(seed)
    encoded = {
        f"{image}.jpg": [
            [1, *random.integers(4, 50, random.integers(1, 20)), 2] for _ in range(captions)
        ]
        for image in range(images)
    }
    features = {name: np.full((2, 3), image, "float32") for image, name in enumerate(encoded)}
    return encoded, features


def list_rows(batches):
    """Yields (features, words, targets, weights) of every image of an epoch."""
    for index in range(len(batches)):
        inputs, targets, weights = batches[index]
        yield from zip(inputs["features"], inputs["words"], targets, weights, strict=True)


def list_captions(batches):
    """The number in the features and the ids of every caption of an epoch."""
    captions = []
    for features, words, targets, weights in list_rows(batches):
        targets, weights = targets.reshape(words.shape), weights.reshape(words.shape)
        for ids, next_ids, id_weights in zip(words, targets, weights, strict=True):
            is_word = id_weights > 0
            if is_word.any():
                captions.append((int(features.flat[0]), [*ids[is_word], next_ids[is_word][-1]]))
    return sorted(captions)


def test_targets_are_the_words_shifted_by_one_and_padded_on_the_right():
    batches = CaptionBatches([Variant(CAPTIONS, FEATURES)], batch_size=2)
    assert len(batches) == 1
    inputs, targets, weights = batches[0]
    assert inputs["words"].tolist() == [
        [[1, 7, 8, 0, 0], [1, 9, 0, 0, 0]],
        [[1, 5, 6, 7, 8], [0, 0, 0, 0, 0]],
    ]
    assert targets.tolist() == [
        [7, 8, 2, 0, 0, 9, 2, 0, 0, 0],
        [5, 6, 7, 8, 2, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(weights, (targets != 0) / 10)
    assert inputs["features"].tolist() == [[[1, 2]], [[3, 4]]]
    assert inputs["words"].dtype == targets.dtype == np.int32
    assert inputs["features"].dtype == np.float16
    assert weights.dtype == np.float32


def test_padding_extends_to_the_most_captions_and_the_longest_one():
    words, targets = pad([[[1, 5, 2]], [[1, 6, 7, 2], [1, 8]]], max_captions=2)
    assert words.tolist() == [[[1, 5, 0], [0, 0, 0]], [[1, 6, 7], [1, 0, 0]]]
    assert targets.tolist() == [[5, 2, 0, 0, 0, 0], [6, 7, 2, 8, 0, 0]]


def test_an_epoch_holds_every_caption_once_with_the_features_of_its_image():
    captions, features = make_variant(images=40)
    expected = sorted(
        (image, list(ids)) for image, encoded in enumerate(captions.values()) for ids in encoded
    )
    assert list_captions(CaptionBatches([Variant(captions, features)], 7)) == expected


def test_an_epoch_draws_one_variant_of_each_image_with_the_captions_of_that_variant():
    captions, features = make_variant(images=60)
    other_captions = {
        name: [ids[::-1] for ids in image_captions] for name, image_captions in captions.items()
    }
    other_features = {name: array + 100 for name, array in features.items()}
    batches = CaptionBatches(
        [Variant(captions, features), Variant(other_captions, other_features)], 8
    )
    drawn = []
    for _ in range(2):
        epoch = list_captions(batches)
        assert len(epoch) == 300
        for number, ids in epoch:
            variant = (captions, other_captions)[number // 100]
            assert ids in [list(expected) for expected in variant[f"{number % 100}.jpg"]]
        drawn.append({number for number, _ in epoch})
        batches.on_epoch_end()
    assert 20 <= sum(number >= 100 for number in drawn[0]) <= 40
    assert drawn[0] != drawn[1]


def test_the_last_batch_is_smaller_and_no_batch_is_empty():
    captions, features = make_variant(images=20)
    batches = CaptionBatches([Variant(captions, features)], 8)
    assert sorted(len(batches[index][1]) for index in range(len(batches))) == [4, 8, 8]


def test_the_longest_captions_of_the_images_of_a_batch_have_similar_lengths():
    captions, features = make_variant(images=640, captions=1)
    batches = CaptionBatches([Variant(captions, features)], 8)
    weights = np.concatenate([batches[index][2].ravel() for index in range(len(batches))])
    padding = (weights == 0).mean()
    assert padding < 0.1  # in batches of any lengths, it is near a half


def test_a_word_weighs_the_same_in_short_and_in_long_captions():
    captions, features = make_variant(images=50)
    batches = CaptionBatches([Variant(captions, features)], 16)
    weights = np.concatenate([batches[index][2].ravel() for index in range(len(batches))])
    assert len(np.unique(weights[weights > 0])) == 1
    assert weights.sum() / len(batches) == pytest.approx(1, abs=1e-5)


def test_the_first_two_batches_differ_in_length_if_any_do():
    """Keras takes what is equal in the first two batches for fixed, and breaks on the third."""
    captions = {f"{i}.jpg": [[1, *[5] * n, 2]] for i, n in enumerate((3, 3, 3, 3, 3, 3, 3, 9))}
    features = {name: np.zeros((1, 2), "float32") for name in captions}
    for seed in range(20):
        batches = CaptionBatches([Variant(captions, features)], batch_size=2, seed=seed)
        assert [batches[index][1].shape[1] for index in range(4)] == [10, 4, 4, 4]


def test_batches_are_as_wide_as_the_most_captions_of_any_image():
    """Keras takes what is equal in the first two batches for fixed, and breaks on the third."""
    captions = {f"{i}.jpg": [[1, *[5] * (i % 7 + 1), 2]] * (3 if i == 20 else 1) for i in range(24)}
    features = {name: np.zeros((1, 2), "float32") for name in captions}
    batches = CaptionBatches([Variant(captions, features)], batch_size=4)
    assert [batches[index][0]["words"].shape[1] for index in range(6)] == [3] * 6
    assert sum((batches[index][1] == 2).sum() for index in range(6)) == 26


def test_epochs_differ_and_can_be_repeated():
    captions, features = make_variant(images=30)

    def words(batches):
        return [row[1].tolist() for row in list_rows(batches)]

    batches = CaptionBatches([Variant(captions, features)], 8, seed=3)
    first = words(batches)
    batches.on_epoch_end()
    second = words(batches)
    assert first != second
    assert words(CaptionBatches([Variant(captions, features)], 8, seed=3)) == first
    assert words(CaptionBatches([Variant(captions, features)], 8, seed=3, epoch=1)) == second
    assert words(CaptionBatches([Variant(captions, features)], 8, seed=4)) != first


def test_an_image_without_features_is_named():
    with pytest.raises(ValueError, match="got none of 1, such as dog.jpg"):
        CaptionBatches([Variant(CAPTIONS, {"cat.jpg": FEATURES["cat.jpg"]})], 3)


def test_separate_captions_have_a_row_each():
    captions, features, _ = separate_captions(Variant(CAPTIONS, FEATURES))
    assert len(captions) == 3
    assert dict(captions) == {
        "dog.jpg#0": [[1, 7, 8, 2]],
        "dog.jpg#1": [[1, 9, 2]],
        "cat.jpg#0": [[1, 5, 6, 7, 8, 2]],
    }
    assert [features[row].tolist() for row in captions] == [[[1, 2]], [[1, 2]], [[3, 4]]]


def test_rows_of_separate_captions_have_less_padding():
    variant = Variant(*make_variant(images=64))
    together = CaptionBatches([variant], batch_size=8)
    alone = CaptionBatches([separate_captions(variant)], batch_size=40)
    assert len(alone) == len(together) == 8
    assert list_captions(alone) == list_captions(together)
    sizes = [sum(batches[n][1].size for n in range(8)) for batches in (alone, together)]
    assert sizes[0] < 0.8 * sizes[1]


def test_rows_without_features_are_named():
    with pytest.raises(ValueError, match="cat.jpg#0"):
        CaptionBatches([separate_captions(Variant(CAPTIONS, {"dog.jpg": FEATURES["dog.jpg"]}))], 2)


def test_larger_groups_have_less_padding():
    captions, features = make_variant(400, captions=1)
    padded = [
        np.mean([(words == 0).mean() for _, words, *_ in list_rows(batches)])
        for batches in (
            CaptionBatches([Variant(captions, features)], 10, batches_per_group=size)
            for size in (1, 4, 40)
        )
    ]
    assert padded[0] > 2 * padded[1] > 4 * padded[2]


def test_batches_are_drawn_by_threads_of_keras():
    """If TensorFlow drew them, every epoch would end with a wait for its autotuner."""
    threads = []

    class RecordingBatches(CaptionBatches):
        def __getitem__(self, index):
            threads.append(threading.current_thread())
            return super().__getitem__(index)

    words = keras.Input((None, None), dtype="int32", name="words")
    features = keras.Input((2, 3), name="features")
    logits = keras.layers.Embedding(50, 50)(words)
    logits = keras.layers.Reshape((-1, 50))(logits)
    model = keras.Model({"features": features, "words": words}, logits)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(RecordingBatches([Variant(*make_variant(12))], 4), epochs=2, verbose=0, shuffle=False)
    # First, Keras reads the shapes of two batches.
    shape_threads, epoch_threads = threads[:2], threads[2:]
    assert set(shape_threads) == {threading.main_thread()}
    assert len(epoch_threads) == 2 * 3
    assert all(thread.name.endswith("(worker)") for thread in epoch_threads)
