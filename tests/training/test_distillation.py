import keras
import numpy as np
import pytest

from captioning.models.caption_model import build_caption_model
from captioning.settings import TrainingSettings
from captioning.training.batches import CaptionBatches, Variant
from captioning.training.distillation import DistillationBatches, build_teacher

SETTINGS = TrainingSettings(decoder="merge", embedding_units=8, units=12, dropout=0.0)
WORDS, WIDTH = 20, 5


@pytest.fixture(scope="module")
def members():
    models = []
    for seed in range(2):
        keras.utils.set_random_seed(seed)
        models.append(build_caption_model(WORDS, WIDTH, SETTINGS))
    return models


@pytest.fixture(scope="module")
def teacher(members):
    return build_teacher(members, SETTINGS, "float32")


@pytest.fixture
def batches():
    random = np.random.default_rng(0)
    names = [f"{number}.jpg" for number in range(10)]
    captions = {name: [[1, *random.integers(4, WORDS, 3), 2], [1, 4, 2]] for name in names}
    features = {name: random.normal(size=(4, WIDTH)).astype("float32") for name in names}
    return CaptionBatches([Variant(captions, features)], 4)


def test_the_target_of_every_word_is_the_mean_of_the_members_probabilities(
    members, teacher, batches, tmp_path
):
    distilled = DistillationBatches(batches, teacher, tmp_path)
    assert len(distilled) == len(batches) == 3
    for index in range(3):
        inputs, probabilities, weights = distilled[index]
        expected_inputs, targets, expected_weights = batches[index]
        np.testing.assert_array_equal(inputs["features"], expected_inputs["features"])
        np.testing.assert_array_equal(inputs["words"], expected_inputs["words"])
        np.testing.assert_array_equal(weights, expected_weights)
        expected = np.mean(
            [keras.ops.softmax(member.predict_on_batch(inputs)) for member in members], axis=0
        )
        assert probabilities.shape == (*targets.shape, WORDS)
        is_word = weights > 0
        np.testing.assert_allclose(probabilities[is_word], expected[is_word], rtol=1e-3)
        assert not probabilities[~is_word].any()


def test_words_below_the_top_k_share_the_rest_evenly(teacher, batches, monkeypatch, tmp_path):
    monkeypatch.setattr("captioning.training.distillation.TOP_K", 3)
    inputs, targets, weights = DistillationBatches(batches, teacher, tmp_path)[0]
    probabilities = teacher.predict_on_batch(inputs)[weights > 0]
    soft_targets = targets[weights > 0]
    order = np.argsort(-probabilities)
    top, others = order[:, :3], order[:, 3:]
    expected = np.take_along_axis(probabilities, top, -1)
    np.testing.assert_allclose(np.take_along_axis(soft_targets, top, -1), expected, rtol=1e-3)
    rest = (1 - expected.sum(axis=-1, keepdims=True)) / (WORDS - 3)
    np.testing.assert_allclose(
        np.take_along_axis(soft_targets, others, -1), np.repeat(rest, WORDS - 3, axis=-1), rtol=1e-3
    )


def test_soft_targets_have_a_share_and_the_words_of_the_captions_the_rest(
    teacher, batches, tmp_path
):
    _, soft, weights = DistillationBatches(batches, teacher, tmp_path)[0]
    _, mixed, _ = DistillationBatches(batches, teacher, tmp_path, soft_target_share=0.3)[0]
    _, words, _ = DistillationBatches(batches, teacher, tmp_path, soft_target_share=0.0)[0]
    _, targets, _ = batches[0]
    is_word = weights > 0
    np.testing.assert_array_equal(words[is_word], np.eye(WORDS)[targets[is_word]])
    np.testing.assert_allclose(mixed[is_word], (0.3 * soft + 0.7 * words)[is_word], atol=1e-6)
    assert not mixed[~is_word].any() and not words[~is_word].any()


def test_a_teacher_predicts_each_caption_once_from_the_whole_image(
    teacher, batches, monkeypatch, tmp_path
):
    ((captions, features, _),) = batches.variants
    cropped = {name: -array for name, array in features.items()}
    batches = CaptionBatches([Variant(captions, features), Variant(captions, cropped)], 4)
    distilled = DistillationBatches(batches, teacher, tmp_path)
    assert len({variant for index in range(3) for _, variant in batches.images_in(index)}) == 2
    expected = {
        index: teacher.predict_on_batch(
            inputs
            | {"features": np.stack([features[name] for name, _ in batches.images_in(index)])}
        )
        for index in range(3)
        for inputs in [batches[index][0]]
    }
    monkeypatch.setattr(teacher, "predict_on_batch", None)  # not to be called again
    for index in range(3):
        inputs, probabilities, weights = distilled[index]
        np.testing.assert_array_equal(inputs["features"], batches[index][0]["features"])
        is_word = weights > 0
        np.testing.assert_allclose(probabilities[is_word], expected[index][is_word], rtol=1e-3)


def test_a_teacher_reads_other_features_than_its_student(teacher, batches, tmp_path):
    ((captions, features, _),) = batches.variants
    flipped_captions = {name: [[1, 5, 2], [1, 4, 2]] for name in captions}
    flipped = Variant(flipped_captions, features, is_flipped=True)
    wide = {name: np.zeros((9, 30), "float32") for name in captions}
    for_student = CaptionBatches(
        [Variant(captions, wide), Variant(flipped_captions, wide, is_flipped=True)], 4
    )
    distilled = DistillationBatches(for_student, teacher, tmp_path, [*batches.variants, flipped])
    variants = set()
    for index in range(3):
        inputs, probabilities, weights = distilled[index]
        drawn = for_student.images_in(index)
        variants |= {variant for _, variant in drawn}
        inputs["features"] = np.stack([features[name] for name, _ in drawn])
        is_word = weights > 0
        expected = teacher.predict_on_batch(inputs)[is_word]
        np.testing.assert_allclose(probabilities[is_word], expected, rtol=1e-3)
    assert variants == {0, 1}


def test_keras_draws_batches_with_and_without_a_teacher_in_the_same_way(teacher, batches, tmp_path):
    distilled = DistillationBatches(batches, teacher, tmp_path)
    assert (distilled.workers, distilled.max_queue_size) == (
        batches.workers,
        batches.max_queue_size,
    )


def test_batches_with_soft_targets_are_shuffled_after_each_epoch(teacher, batches, tmp_path):
    distilled = DistillationBatches(batches, teacher, tmp_path)
    first = [distilled[index][0]["features"] for index in range(3)]
    distilled.on_epoch_end()
    second = [distilled[index][0]["features"] for index in range(3)]
    assert any(not np.array_equal(*features) for features in zip(first, second, strict=True))


def test_a_student_learns_the_probabilities_of_its_teacher(teacher, batches, tmp_path):
    keras.utils.set_random_seed(9)
    student = build_caption_model(WORDS, WIDTH, SETTINGS)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    distilled = DistillationBatches(batches, teacher, tmp_path)

    def distance():
        inputs, probabilities, weights = distilled[0]
        predicted = keras.ops.softmax(student.predict_on_batch(inputs))
        return (np.abs(predicted - probabilities).sum(axis=-1) * (weights > 0)).max()

    before = distance()
    student.fit(distilled, epochs=20, verbose=0)
    assert distance() < before / 3


def test_in_lower_precision_a_teacher_predicts_nearly_the_same(members, teacher, batches, tmp_path):
    in_bfloat16 = build_teacher(members, SETTINGS, "mixed_bfloat16")
    _, expected, _ = DistillationBatches(batches, teacher, tmp_path)[0]
    _, rounded, _ = DistillationBatches(batches, in_bfloat16, tmp_path)[0]
    assert rounded.dtype == np.float32
    # bfloat16 has 8 bits: a dozen roundings, one after the other, err by up to 1/256 each.
    np.testing.assert_allclose(rounded, expected, atol=12 / 256 * expected.max())


def test_soft_targets_leave_no_file_in_the_folder_of_the_run(teacher, batches, tmp_path):
    distilled = DistillationBatches(batches, teacher, tmp_path)
    assert not any(tmp_path.iterdir())
    _, probabilities, weights = distilled[0]
    assert probabilities[weights > 0].sum(axis=-1) == pytest.approx(1, abs=1e-3)
