import keras
import numpy as np
import pytest

from captioning.models.caption_model import build_caption_model
from captioning.settings import TrainingSettings
from captioning.training.batches import CaptionBatches
from captioning.training.distillation import DistillationBatches, build_teacher

SETTINGS = TrainingSettings(embedding_units=8, units=12, heads=3)
WORDS, WIDTH = 20, 5


@pytest.fixture(scope="module")
def members():
    models = []
    for seed in range(2):
        keras.utils.set_random_seed(seed)
        models.append(build_caption_model(WORDS, WIDTH, SETTINGS))
    return models


@pytest.fixture
def batches():
    random = np.random.default_rng(0)
    names = [f"{number}.jpg" for number in range(10)]
    captions = {name: [[1, *random.integers(4, WORDS, 3), 2], [1, 4, 2]] for name in names}
    features = {name: random.normal(size=(4, WIDTH)).astype("float32") for name in names}
    return CaptionBatches([(captions, features)], 4)


def test_the_target_of_every_word_is_the_mean_of_what_the_members_think(members, batches):
    taught = DistillationBatches(batches, build_teacher(members, SETTINGS, "float32"))
    assert len(taught) == len(batches) == 3
    for index in range(3):
        inputs, probabilities, weights = taught[index]
        expected_inputs, targets, expected_weights = batches[index]
        np.testing.assert_array_equal(inputs["features"], expected_inputs["features"])
        np.testing.assert_array_equal(inputs["words"], expected_inputs["words"])
        np.testing.assert_array_equal(weights, expected_weights)
        expected = np.mean([keras.ops.softmax(one(inputs)) for one in members], axis=0)
        assert probabilities.shape == (*targets.shape, WORDS)
        said = weights > 0
        np.testing.assert_allclose(probabilities[said], expected[said], rtol=1e-3)
        assert not probabilities[~said].any()


def test_what_is_not_among_the_likeliest_words_shares_evenly_what_is_left(
    members, batches, monkeypatch
):
    monkeypatch.setattr("captioning.training.distillation.TOP_K", 3)
    teacher = build_teacher(members, SETTINGS, "float32")
    inputs, probabilities, weights = DistillationBatches(batches, teacher)[0]
    whole = teacher.predict_on_batch(inputs)[weights > 0]
    kept = probabilities[weights > 0]
    likeliest = np.argsort(-whole)[:, :3]
    np.testing.assert_allclose(
        np.take_along_axis(kept, likeliest, -1), np.take_along_axis(whole, likeliest, -1), rtol=1e-3
    )
    others = np.argsort(-whole)[:, 3:]
    left = (1 - np.take_along_axis(whole, likeliest, -1).sum(axis=-1, keepdims=True)) / (WORDS - 3)
    np.testing.assert_allclose(
        np.take_along_axis(kept, others, -1), np.repeat(left, WORDS - 3, axis=-1), rtol=1e-3
    )


def test_a_teacher_is_asked_about_each_view_and_only_once(members, batches):
    ((captions, features),) = batches.views
    mirrored = {name: -array for name, array in features.items()}
    batches = CaptionBatches([(captions, features), (captions, mirrored)], 4)
    teacher = build_teacher(members, SETTINGS, "float32")
    taught = DistillationBatches(batches, teacher)
    expected = {index: teacher.predict_on_batch(batches[index][0]) for index in range(3)}
    assert len({view for index in range(3) for _, view in batches.images_of(index)}) == 2
    teacher.predict_on_batch = None  # not to be called
    for index in range(3):
        _, probabilities, weights = taught[index]
        said = weights > 0
        np.testing.assert_allclose(probabilities[said], expected[index][said], rtol=1e-3)


def test_they_are_drawn_as_batches_without_a_teacher_are(members, batches):
    taught = DistillationBatches(batches, build_teacher(members, SETTINGS, "float32"))
    assert (taught.workers, taught.max_queue_size) == (batches.workers, batches.max_queue_size)


def test_they_are_dealt_anew_after_each_epoch(members, batches):
    taught = DistillationBatches(batches, build_teacher(members, SETTINGS, "float32"))
    first = [taught[index][0]["features"] for index in range(3)]
    taught.on_epoch_end()
    second = [taught[index][0]["features"] for index in range(3)]
    assert any(not np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_student_comes_to_think_as_its_teacher_does(members, batches):
    teacher = build_teacher(members[:1], SETTINGS, "float32")
    keras.utils.set_random_seed(9)
    settings = TrainingSettings(embedding_units=8, units=12, heads=3, dropout=0.0)
    student = build_caption_model(WORDS, WIDTH, settings)
    student.compile(
        "adam", keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    taught = DistillationBatches(batches, teacher)

    def distance():
        inputs, probabilities, weights = taught[0]
        guessed = keras.ops.convert_to_numpy(keras.ops.softmax(student(inputs)))
        return (np.abs(guessed - probabilities).sum(axis=-1) * (weights > 0)).max()

    before = distance()
    student.fit(taught, epochs=40, verbose=0)
    assert distance() < before / 3


def test_in_lower_precision_a_teacher_thinks_nearly_the_same(members, batches):
    exact, rounded = (
        DistillationBatches(batches, build_teacher(members, SETTINGS, precision))[0][1]
        for precision in ("float32", "mixed_bfloat16")
    )
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(exact, rounded, atol=0.01)
