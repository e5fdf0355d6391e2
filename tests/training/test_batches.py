import threading

import keras
import numpy as np
import pytest

from captioning.training.batches import CaptionBatches, one_caption_per_row, pad

CAPTIONS = {"dog.jpg": [[1, 7, 8, 2], [1, 9, 2]], "cat.jpg": [[1, 5, 6, 7, 8, 2]]}
FEATURES = {
    "cat.jpg": np.array([[3.0, 4.0]], "float16"),
    "dog.jpg": np.array([[1.0, 2.0]], "float16"),
    "unused.jpg": np.array([[9.0, 9.0]], "float16"),
}


def many(images, captions=5, seed=0):
    random = np.random.default_rng(seed)
    encoded = {
        f"{image}.jpg": [
            [1, *random.integers(4, 50, random.integers(1, 20)), 2] for _ in range(captions)
        ]
        for image in range(images)
    }
    features = {name: np.full((2, 3), image, "float32") for image, name in enumerate(encoded)}
    return encoded, features


def rows(batches):
    """Every image of an epoch, as (features, words, targets, weights)."""
    for index in range(len(batches)):
        inputs, targets, weights = batches[index]
        yield from zip(inputs["features"], inputs["words"], targets, weights, strict=True)


def by_caption(words, *arrays):
    """Arrays (positions,) of one image in the shape of its words (captions, length)."""
    return [array.reshape(words.shape) for array in arrays]


def captions_in(batches):
    """Every caption of an epoch, as (number in the features, ids)."""
    return sorted(
        (int(image.flat[0]), [*ids[counts > 0], *target[counts > 0][-1:]])
        for image, words, targets, weights in rows(batches)
        for ids, target, counts in zip(words, *by_caption(words, targets, weights), strict=True)
        if counts.any()
    )


def test_one_batch_holds_shifted_words_and_targets_padded_on_the_right():
    batches = CaptionBatches([(CAPTIONS, FEATURES)], batch_size=2)
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


def test_padding_takes_the_most_captions_and_the_longest():
    words, targets = pad([[[1, 5, 2]], [[1, 6, 7, 2], [1, 8]]], most_captions=2)
    assert words.tolist() == [[[1, 5, 0], [0, 0, 0]], [[1, 6, 7], [1, 0, 0]]]
    assert targets.tolist() == [[5, 2, 0, 0, 0, 0], [6, 7, 2, 8, 0, 0]]


def test_an_epoch_holds_every_caption_once_with_the_features_of_its_image():
    captions, features = many(images=40)
    expected = sorted(
        (image, list(ids)) for image, encoded in enumerate(captions.values()) for ids in encoded
    )
    assert captions_in(CaptionBatches([(captions, features)], 7)) == expected


def test_an_epoch_draws_one_variant_of_each_image_with_the_captions_of_that_variant():
    captions, features = many(images=60)
    other_captions = {name: [ids[::-1] for ids in each] for name, each in captions.items()}
    other_features = {name: array + 100 for name, array in features.items()}
    batches = CaptionBatches([(captions, features), (other_captions, other_features)], 8)
    seen = {}
    for epoch in range(2):
        found = captions_in(batches)
        assert len(found) == 300
        for number, ids in found:
            variant = number // 100
            name = f"{number % 100}.jpg"
            assert ids in [list(each) for each in (captions, other_captions)[variant][name]]
            seen.setdefault(epoch, set()).add(number)
        batches.on_epoch_end()
    assert 20 <= sum(number >= 100 for number in seen[0]) <= 40
    assert seen[0] != seen[1]


def test_the_last_batch_is_smaller_and_no_batch_is_empty():
    captions, features = many(images=20)
    batches = CaptionBatches([(captions, features)], 8)
    assert sorted(len(batches[index][1]) for index in range(len(batches))) == [4, 8, 8]


def test_images_of_a_batch_have_longest_captions_of_similar_length():
    captions, features = many(images=640, captions=1)
    batches = CaptionBatches([(captions, features)], 8)
    weights = [batches[index][2] for index in range(len(batches))]
    padding = 1 - sum((each > 0).sum() for each in weights) / sum(each.size for each in weights)
    assert padding < 0.1  # shuffled without regard to length, it is near a half


def test_a_word_weighs_the_same_in_short_and_in_long_captions():
    captions, features = many(images=50)
    batches = CaptionBatches([(captions, features)], 16)
    weights = [batches[index][2] for index in range(len(batches))]
    assert len(np.unique(np.concatenate([each[each > 0] for each in weights]))) == 1
    assert sum(each.sum() for each in weights) / len(weights) == pytest.approx(1, abs=1e-5)


def test_the_first_two_batches_differ_in_length_wherever_any_do():
    """Keras takes what is equal in the first two batches for fixed, and breaks on the third."""
    captions = {f"{i}.jpg": [[1, *[5] * n, 2]] for i, n in enumerate((3, 3, 3, 3, 3, 3, 3, 9))}
    features = {name: np.zeros((1, 2), "float32") for name in captions}
    for seed in range(20):
        batches = CaptionBatches([(captions, features)], batch_size=2, seed=seed)
        assert [batches[index][1].shape[1] for index in range(4)] == [10, 4, 4, 4]


def test_batches_are_as_wide_as_the_most_captions_of_any_image():
    """Keras takes what is equal in the first two batches for fixed, and breaks on the third."""
    captions = {f"{i}.jpg": [[1, *[5] * (i % 7 + 1), 2]] * (3 if i == 20 else 1) for i in range(24)}
    features = {name: np.zeros((1, 2), "float32") for name in captions}
    batches = CaptionBatches([(captions, features)], batch_size=4)
    assert [batches[index][0]["words"].shape[1] for index in range(6)] == [3] * 6
    assert sum((batches[index][1] == 2).sum() for index in range(6)) == 26


def test_epochs_differ_and_can_be_repeated():
    captions, features = many(images=30)

    def words(batches):
        return [row[1].tolist() for row in rows(batches)]

    batches = CaptionBatches([(captions, features)], 8, seed=3)
    first = words(batches)
    batches.on_epoch_end()
    second = words(batches)
    assert first != second
    assert words(CaptionBatches([(captions, features)], 8, seed=3)) == first
    assert words(CaptionBatches([(captions, features)], 8, seed=3, epoch=1)) == second
    assert words(CaptionBatches([(captions, features)], 8, seed=4)) != first


def test_an_image_without_features_is_named():
    with pytest.raises(ValueError, match="got none of 1, among them dog.jpg"):
        CaptionBatches([(CAPTIONS, {"cat.jpg": FEATURES["cat.jpg"]})], 3)


def test_every_caption_may_have_a_row_of_its_own():
    captions, features = one_caption_per_row((CAPTIONS, FEATURES))
    assert captions == {
        "dog.jpg#0": [[1, 7, 8, 2]],
        "dog.jpg#1": [[1, 9, 2]],
        "cat.jpg#0": [[1, 5, 6, 7, 8, 2]],
    }
    assert [features[row].tolist() for row in captions] == [[[1, 2]], [[1, 2]], [[3, 4]]]


def test_rows_of_one_caption_hold_the_same_captions_with_less_padding():
    variant = many(images=64)
    together = CaptionBatches([variant], batch_size=8)
    alone = CaptionBatches([one_caption_per_row(variant)], batch_size=40)
    assert len(alone) == len(together) == 8
    assert captions_in(alone) == captions_in(together)
    sizes = [sum(batches[n][1].size for n in range(8)) for batches in (alone, together)]
    assert sizes[0] < 0.8 * sizes[1]


def test_rows_without_features_are_named():
    with pytest.raises(ValueError, match="cat.jpg#0"):
        CaptionBatches([one_caption_per_row((CAPTIONS, {"dog.jpg": FEATURES["dog.jpg"]}))], 2)


def test_the_wider_the_groups_the_less_padding():
    captions, features = many(400, captions=1)
    padded = [
        np.mean([(words == 0).mean() for _, words, *_ in rows(batches)])
        for batches in (
            CaptionBatches([(captions, features)], 10, batches_per_group=size)
            for size in (1, 4, 40)
        )
    ]
    assert padded[0] > 2 * padded[1] > 4 * padded[2]


def test_batches_are_drawn_by_threads_of_keras():
    """Drawn by TensorFlow, they would have its tuner of input pipelines waited for."""
    drawn_by = []

    class Watched(CaptionBatches):
        def __getitem__(self, index):
            drawn_by.append(threading.current_thread())
            return super().__getitem__(index)

    words = keras.Input((None, None), dtype="int32", name="words")
    features = keras.Input((2, 3), name="features")
    logits = keras.layers.Embedding(50, 50)(words)
    logits = keras.layers.Reshape((-1, 50))(logits)
    model = keras.Model({"features": features, "words": words}, logits)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    captions, of_images = many(12)
    model.fit(Watched([(captions, of_images)], 4), epochs=2, verbose=0, shuffle=False)
    first_looks, epochs = drawn_by[:2], drawn_by[2:]  # in the first two, Keras looks for shapes
    assert set(first_looks) == {threading.main_thread()}
    assert len(epochs) == 2 * 3
    assert all(thread.name.endswith("(worker)") for thread in epochs)
