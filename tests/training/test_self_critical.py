from dataclasses import replace

import keras
import numpy as np
import pytest

from captioning.data.vocabulary import END, START, Vocabulary
from captioning.export.keras_to_openvino import to_decoder
from captioning.inference.beam_search import Hypothesis
from captioning.models.caption_model import build_caption_model
from captioning.settings import TrainingSettings
from captioning.training.batches import Variant
from captioning.training.cross_entropy import SmoothedCrossentropy
from captioning.training.self_critical import SelfCriticalBatches, compute_advantages

VOCABULARY = Vocabulary([f"word{number}" for number in range(12)])
SETTINGS = TrainingSettings(
    decoder="merge", embedding_units=8, units=12, dropout=0.0, batch_size=3, samples=4,
    bleu_weight=0.0, self_critical_dropout=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def decoder(model):
    return to_decoder(model, VOCABULARY, 8)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    return build_caption_model(len(VOCABULARY), 5, SETTINGS)


@pytest.fixture
def variants():
    random = np.random.default_rng(0)
    names = [f"{number}.jpg" for number in range(7)]
    captions = {
        name: [[START, *random.integers(4, 16, 4), END] for _ in range(3)] for name in names
    }
    features = {name: random.normal(size=(3, 5)).astype("float32") for name in names}
    return [Variant(captions, features)]


def test_advantages_are_rewards_above_the_mean_of_their_image():
    advantages = compute_advantages([[1.0, 3.0], [2.0, 2.0, 5.0]])
    np.testing.assert_allclose(advantages, [[-1, 1, 0], [-1, -1, 2]])


def test_an_epoch_generates_several_captions_of_every_image(decoder, variants):
    batches = SelfCriticalBatches(variants, decoder, SETTINGS)
    epoch = list(batches.draw_epoch(0))
    assert len(epoch) == len(batches) == 3
    assert [len(targets) for _, targets, _, _ in epoch] == [3, 3, 1]
    for inputs, targets, weights, reward in epoch:
        images, captions, length = inputs["words"].shape
        assert targets.shape == weights.shape == (images, captions * length)
        assert captions == 4
        assert (inputs["words"][:, :, 0] == START).all()
        assert (weights[targets == 0] == 0).all()
        assert np.isfinite(reward)


def test_a_weight_is_the_advantage_of_its_caption_in_its_variant():
    """The decoder always generates the same two captions. For some images, the first is right if
    they are plain, and the second if they are flipped; for the others, neither is right."""

    class ConstantDecoder:
        vocabulary = VOCABULARY

        def search(self, features, search):
            return [[Hypothesis((4, 5), -1.0), Hypothesis((6,), -2.0)] for _ in features]

    known, unknown = ([f"{number}.jpg" for number in part] for part in (range(6), range(6, 9)))
    others = dict.fromkeys(unknown, [[START, 9, END]])
    plain = dict.fromkeys(known, [[START, 4, 5, END]]) | others
    flipped = dict.fromkeys(known, [[START, 6, END]]) | others
    plain_features = {name: np.full((1, 2), name in known, "float32") for name in plain}
    flipped_features = {name: 10 + array for name, array in plain_features.items()}
    variants = [Variant(plain, plain_features), Variant(flipped, flipped_features, True)]
    settings = replace(SETTINGS, batch_size=9, samples=2)
    batches = SelfCriticalBatches(variants, ConstantDecoder(), settings)
    ((inputs, targets, weights, _),) = batches.draw_epoch(0)
    assert targets[0].tolist() == [4, 5, END, 6, END, 0]
    weights = weights.reshape(9, 2, 3)
    signs = {1: [1, -1], 11: [-1, 1]}  # plain and known, flipped and known
    kinds = inputs["features"][:, 0, 0].tolist()
    assert set(signs) <= set(kinds)
    for kind, image_weights in zip(kinds, weights, strict=True):
        assert kind not in signs or np.sign(image_weights[:, 0]).tolist() == signs[kind]
    np.testing.assert_allclose(weights[:, 0], np.repeat(weights[:, :1, 0], 3, axis=1))
    assert (weights[:, 1, 2] == 0).all()


def test_the_reward_has_the_weight_of_supported_words(decoder, variants):
    rewards = []
    for weight in (0.0, 1.0, 2.0):
        settings = replace(SETTINGS, support_weight=weight)
        *_, reward = next(SelfCriticalBatches(variants, decoder, settings).draw_epoch(0))
        rewards.append(reward)
    plain, supported, twice = rewards
    assert supported != plain
    assert twice - plain == pytest.approx(2 * (supported - plain))


def test_an_epoch_can_be_repeated_and_differs_from_the_next(decoder, variants):
    batches = SelfCriticalBatches(variants, decoder, SETTINGS)

    def features(epoch):
        return np.concatenate([inputs["features"] for inputs, *_ in batches.draw_epoch(epoch)])

    np.testing.assert_array_equal(features(0), features(0))
    assert not np.array_equal(features(0), features(1))


def test_features_are_dropped_in_all_cells_of_an_image_and_for_the_decoder_too(variants):
    searched = []

    class RecordingDecoder:
        vocabulary = VOCABULARY

        def search(self, features, search):
            searched.append(features.copy())
            return [[Hypothesis((4,), -1.0)] for _ in features]

    ((captions, plain, _),) = variants
    variants = [Variant(captions, {name: np.ones((3, 1000), "float32") for name in plain})]
    settings = replace(SETTINGS, batch_size=7, samples=2, self_critical_dropout=0.25)
    ((inputs, *_),) = SelfCriticalBatches(variants, RecordingDecoder(), settings).draw_epoch(0)
    (features,) = searched
    np.testing.assert_array_equal(inputs["features"], features)
    np.testing.assert_array_equal(features, np.repeat(features[:, :1], 3, axis=1))
    assert set(np.unique(features)) == {0, np.float32(4 / 3)}
    assert (features == 0).mean() == pytest.approx(0.25, abs=0.02)
    assert not np.array_equal(features[0], features[1])


def test_a_training_step_raises_the_weighted_log_probability_of_the_captions(
    model, decoder, variants
):
    model.compile(keras.optimizers.SGD(0.05), SmoothedCrossentropy(), jit_compile=False)
    inputs, targets, weights, _ = next(
        SelfCriticalBatches(variants, decoder, replace(SETTINGS, batch_size=7)).draw_epoch(0)
    )
    assert (weights > 0).any() and (weights < 0).any()

    def weighted_log_prob():
        log_probs = keras.ops.convert_to_numpy(
            keras.ops.log_softmax(model.predict_on_batch(inputs))
        )
        return (weights * np.take_along_axis(log_probs, targets[..., None], -1)[..., 0]).sum()

    before = weighted_log_prob()
    model.train_on_batch(inputs, targets, weights)
    assert weighted_log_prob() > before


def test_an_image_without_features_is_an_error_before_the_first_batch(decoder, variants):
    captions, features, *_ = variants[0]
    missing = {name: maps for name, maps in features.items() if name != "3.jpg"}
    with pytest.raises(ValueError, match="got none of 1, such as 3.jpg"):
        SelfCriticalBatches([Variant(captions, missing)], decoder, SETTINGS)
