import numpy as np
import pytest

from captioning.batches import CaptionBatches

CAPTIONS = {"dog.jpg": [[1, 7, 8, 2], [1, 9, 2]], "cat.jpg": [[1, 5, 6, 7, 8, 2]]}
FEATURES = {
    "cat.jpg": np.array([3.0, 4.0], "float32"),
    "dog.jpg": np.array([1.0, 2.0], "float32"),
    "unused.jpg": np.array([9.0, 9.0], "float32"),
}


def many(images, captions=5, seed=0):
    random = np.random.default_rng(seed)
    encoded = {
        f"{image}.jpg": [
            [1, *random.integers(4, 50, random.integers(1, 20)), 2] for _ in range(captions)
        ]
        for image in range(images)
    }
    features = {name: np.full(3, image, "float32") for image, name in enumerate(encoded)}
    return encoded, features


def rows(batches):
    """Every caption of an epoch with its features, as (features, words, targets, weights)."""
    for index in range(len(batches)):
        inputs, targets, weights = batches[index]
        yield from zip(inputs["features"], inputs["words"], targets, weights, strict=True)


def test_one_batch_holds_shifted_words_and_targets_padded_on_the_right():
    batches = CaptionBatches(CAPTIONS, FEATURES, batch_size=3)
    assert len(batches) == 1
    inputs, targets, weights = batches[0]
    assert inputs["words"].tolist() == [[1, 9, 0, 0, 0], [1, 7, 8, 0, 0], [1, 5, 6, 7, 8]]
    assert targets.tolist() == [[9, 2, 0, 0, 0], [7, 8, 2, 0, 0], [5, 6, 7, 8, 2]]
    np.testing.assert_allclose(
        weights, np.array([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]) / 10
    )
    assert inputs["features"].tolist() == [[1, 2], [1, 2], [3, 4]]
    assert inputs["words"].dtype == targets.dtype == np.int32
    assert inputs["features"].dtype == weights.dtype == np.float32


def test_an_epoch_holds_every_caption_once_with_the_features_of_its_image():
    captions, features = many(images=40)
    seen = sorted(
        (int(image[0]), words[weights > 0].tolist(), targets[weights > 0].tolist())
        for image, words, targets, weights in rows(CaptionBatches(captions, features, 7))
    )
    expected = sorted(
        (image, list(ids[:-1]), list(ids[1:]))
        for image, encoded in enumerate(captions.values())
        for ids in encoded
    )
    assert seen == expected


def test_the_last_batch_is_smaller_and_no_batch_is_empty():
    captions, features = many(images=4, captions=5)
    sizes = [
        len(batch[1]) for batch in map(CaptionBatches(captions, features, 8).__getitem__, range(3))
    ]
    assert sorted(sizes) == [4, 8, 8]


def test_batches_are_of_similar_length():
    captions, features = many(images=400)
    weights = [CaptionBatches(captions, features, 16)[index][2] for index in range(125)]
    padding = 1 - sum((each > 0).sum() for each in weights) / sum(each.size for each in weights)
    assert padding < 0.05  # shuffled without regard to length, it is near a half


def test_a_word_weighs_the_same_in_short_and_in_long_captions():
    captions, features = many(images=50)
    batches = CaptionBatches(captions, features, 16)
    weights = [batches[index][2] for index in range(len(batches))]
    assert len(np.unique(np.concatenate([each[each > 0] for each in weights]))) == 1
    assert sum(each.sum() for each in weights) / len(weights) == pytest.approx(1, abs=1e-5)


def test_the_first_two_batches_differ_in_length_wherever_any_do():
    """Keras takes what is equal in the first two batches for fixed, and breaks on the third."""
    captions = {f"{i}.jpg": [[1, *[5] * n, 2]] for i, n in enumerate((3, 3, 3, 3, 3, 3, 3, 9))}
    features = {name: np.zeros(2, "float32") for name in captions}
    for seed in range(20):
        batches = CaptionBatches(captions, features, batch_size=2, seed=seed)
        assert [batches[index][1].shape[1] for index in range(4)] == [10, 4, 4, 4]


def test_epochs_differ_and_can_be_repeated():
    captions, features = many(images=30)

    def words(batches):
        return [row[1].tolist() for row in rows(batches)]

    batches = CaptionBatches(captions, features, 8, seed=3)
    first = words(batches)
    batches.on_epoch_end()
    second = words(batches)
    assert first != second
    assert sorted(map(sum, first)) == sorted(map(sum, second))
    assert words(CaptionBatches(captions, features, 8, seed=3)) == first
    assert words(CaptionBatches(captions, features, 8, seed=3, epoch=1)) == second
    assert words(CaptionBatches(captions, features, 8, seed=4)) != first


def test_an_image_without_features_is_named():
    with pytest.raises(ValueError, match="1 have none, among them dog.jpg"):
        CaptionBatches(CAPTIONS, {"cat.jpg": FEATURES["cat.jpg"]}, 3)
