"""The shapes of batches for several devices, for several processes and for XLA."""

import numpy as np
import pytest

from captioning.training import device_batches
from captioning.training.batches import CaptionBatches, Variant
from captioning.training.device_batches import DeviceBatches, for_devices, pad_batch

CAPTIONS = {"dog.jpg": [[1, 7, 8, 2], [1, 9, 2]], "cat.jpg": [[1, 5, 2]], "pig.jpg": [[1, 6, 2]]}
FEATURES = {name: np.full((1, 2), number, "float16") for number, name in enumerate(CAPTIONS, 1)}


@pytest.fixture
def batches():
    """A batch of two images, and a batch of one."""
    return CaptionBatches([Variant(CAPTIONS, FEATURES)], batch_size=2)


@pytest.fixture
def pretend(monkeypatch):
    """Returns a function that pretends that there are devices, processes and XLA."""

    def set_numbers(devices=1, processes=1, process=0, xla=False):
        values = {"num_devices": devices, "num_processes": processes, "process_number": process,
                  "uses_xla": xla}  # fmt: skip
        for name, value in values.items():
            monkeypatch.setattr(device_batches, name, lambda value=value: value)

    return set_numbers


def test_a_batch_is_padded_with_rows_and_words_of_weight_zero():
    inputs = {
        "features": np.ones((1, 1, 2), "float16"),
        "words": np.array([[[1, 7, 8], [1, 9, 0]]]),
    }
    targets, weights = np.array([[7, 8, 2, 9, 2, 0]]), np.array([[0.2, 0.2, 0.2, 0.2, 0.2, 0.0]])
    inputs, targets, weights = pad_batch((inputs, targets, weights), rows=2, length_step=4)
    assert inputs["features"].tolist() == [[[1, 1]], [[0, 0]]]
    assert inputs["features"].dtype == np.float16
    assert inputs["words"].tolist() == [[[1, 7, 8, 0], [1, 9, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]]
    assert targets.tolist() == [[7, 8, 2, 0, 9, 2, 0, 0], [0] * 8]
    assert weights.tolist() == [[0.2, 0.2, 0.2, 0, 0.2, 0.2, 0, 0], [0] * 8]


def test_soft_targets_are_padded_like_the_words():
    inputs = {"features": np.ones((1, 1, 2)), "words": np.array([[[1, 7]]])}
    soft_targets = np.array([[[0.9, 0.1], [0.2, 0.8]]])
    _, padded, _ = pad_batch((inputs, soft_targets, np.ones((1, 2))), rows=1, length_step=3)
    assert padded.tolist() == [[[0.9, 0.1], [0.2, 0.8], [0, 0]]]


def test_on_one_device_without_xla_the_batches_stay_as_they_are(batches, pretend):
    pretend()
    assert for_devices(batches) is batches


def test_with_xla_all_batches_have_as_many_rows_and_few_lengths(batches, pretend):
    pretend(xla=True)
    shapes = [inputs["words"].shape for inputs, _, _ in for_devices(batches)]
    assert shapes == [(2, 2, 4), (2, 2, 4)]


def test_the_rows_are_a_multiple_of_the_devices_and_the_lengths_stay_without_xla(batches, pretend):
    pretend(devices=3)
    shapes = [inputs["words"].shape for inputs, _, _ in for_devices(batches)]
    assert sorted(shapes) == [(3, 2, 2), (3, 2, 3)]


def test_each_process_has_its_share_of_the_rows_in_order(batches, pretend):
    pretend()
    whole = pad_batch(batches[0], 4, 1)
    shares = []
    for process in range(2):
        pretend(devices=4, processes=2, process=process)
        shares.append(DeviceBatches(batches)[0])
    assert [len(weights) for _, _, weights in shares] == [2, 2]
    for name in ("features", "words"):
        both = np.concatenate([inputs[name] for inputs, _, _ in shares])
        np.testing.assert_array_equal(both, whole[0][name])
    for part in (1, 2):
        both = np.concatenate([share[part] for share in shares])
        np.testing.assert_array_equal(both, whole[part])


def test_the_batches_shuffle_after_an_epoch(pretend):
    captions = {f"{number}.jpg": [[1, 5, 2]] for number in range(20)}
    features = {name: np.full((1, 1), number) for number, name in enumerate(captions)}
    pretend(xla=True)
    batches = for_devices(CaptionBatches([Variant(captions, features)], 20))
    first = batches[0][0]["features"].ravel().tolist()
    batches.on_epoch_end()
    second = batches[0][0]["features"].ravel().tolist()
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
