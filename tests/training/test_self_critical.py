import keras
import numpy as np
import pytest

from captioning.data.vocabulary import END, START, Vocabulary
from captioning.export.keras_to_openvino import to_decoder
from captioning.inference.beam_search import Hypothesis
from captioning.models.caption_model import build_caption_model
from captioning.settings import TrainingSettings
from captioning.training.losses import SmoothedCrossentropy
from captioning.training.self_critical import SelfCriticalBatches, advantages

VOCABULARY = Vocabulary([f"word{number}" for number in range(12)])
SETTINGS = TrainingSettings(embedding_units=8, units=12, heads=2, dropout=0.0)


@pytest.fixture
def model():
    keras.utils.set_random_seed(3)
    return build_caption_model(len(VOCABULARY), 5, SETTINGS)


@pytest.fixture
def views():
    random = np.random.default_rng(0)
    names = [f"{number}.jpg" for number in range(7)]
    captions = {
        name: [[START, *random.integers(4, 16, 4), END] for _ in range(3)] for name in names
    }
    features = {name: random.normal(size=(3, 5)).astype("float32") for name in names}
    return [(captions, features)]


def batches_of(model, views, **changes):
    options = {
        "batch_size": 3,
        "samples": 4,
        "bleu_weight": 0.0,
        "dropout": 0.0,
        "seed": 0,
        **changes,
    }
    return SelfCriticalBatches(views, to_decoder(model, VOCABULARY, 8), **options)


def test_advantages_are_rewards_above_the_mean_of_their_image():
    found = advantages([[1.0, 3.0], [2.0, 2.0, 5.0]])
    np.testing.assert_allclose(found, [[-1, 1, 0], [-1, -1, 2]])


def test_an_epoch_says_several_captions_of_every_image(model, views):
    batches = batches_of(model, views)
    found = list(batches.of_epoch(0))
    assert len(found) == len(batches) == 3
    assert [len(targets) for _, targets, _, _ in found] == [3, 3, 1]
    for inputs, targets, weights, reward in found:
        assert inputs["words"].shape == targets.shape == weights.shape
        assert targets.shape[1] == 4
        assert (inputs["words"][:, :, 0] == START).all()
        assert (weights[targets == 0] == 0).all()
        assert np.isfinite(reward)


def test_a_weight_is_the_advantage_of_its_own_caption_in_its_own_view():
    """A decoder that always says the same two: of some images the first is right when they are seen
    plain, the second when they are not; of the others neither."""

    class Parrot:
        def search(self, features, search):
            return [[Hypothesis((4, 5), -1.0), Hypothesis((6,), -2.0)] for _ in features]

    known, unknown = ([f"{number}.jpg" for number in part] for part in (range(6), range(6, 9)))
    plain = dict.fromkeys(known, [[START, 4, 5, END]]) | dict.fromkeys(unknown, [[START, 9, END]])
    other = dict.fromkeys(known, [[START, 6, END]]) | dict.fromkeys(unknown, [[START, 9, END]])
    features = {name: np.full((1, 2), name in known, "float32") for name in plain}
    mirrored = {name: 10 + array for name, array in features.items()}
    views = [(plain, features), (other, mirrored)]
    options = {"batch_size": 9, "samples": 2, "bleu_weight": 0.0, "dropout": 0.0, "seed": 0}
    ((inputs, targets, weights, _),) = SelfCriticalBatches(views, Parrot(), **options).of_epoch(0)
    assert targets[0].tolist() == [[4, 5, END], [6, END, 0]]
    signs = {1: [1, -1], 11: [-1, 1]}  # plain and known, in the mirror and known
    kinds = inputs["features"][:, 0, 0].tolist()
    assert set(signs) <= set(kinds)
    for kind, of_image in zip(kinds, weights, strict=True):
        assert kind not in signs or np.sign(of_image[:, 0]).tolist() == signs[kind]
    np.testing.assert_allclose(weights[:, 0], np.repeat(weights[:, :1, 0], 3, axis=1))
    assert (weights[:, 1, 2] == 0).all()


def test_an_epoch_can_be_repeated_and_differs_from_the_next(model, views):
    def features(epoch):
        return np.concatenate(
            [batch[0]["features"] for batch in batches_of(model, views).of_epoch(epoch)]
        )

    np.testing.assert_array_equal(features(0), features(0))
    assert not np.array_equal(features(0), features(1))


def test_what_is_hidden_is_hidden_in_all_cells_of_an_image_and_from_the_decoder_too(views):
    heard = []

    class Listener:
        def search(self, features, search):
            heard.append(features.copy())
            return [[Hypothesis((4,), -1.0)] for _ in features]

    ((_, plain),) = views
    views = [(views[0][0], {name: np.ones((3, 1000), "float32") for name in plain})]
    options = {"batch_size": 7, "samples": 1, "bleu_weight": 0.0, "dropout": 0.25, "seed": 0}
    ((inputs, *_),) = SelfCriticalBatches(views, Listener(), **options).of_epoch(0)
    (features,) = heard
    np.testing.assert_array_equal(inputs["features"], features)
    np.testing.assert_array_equal(features, np.repeat(features[:, :1], 3, axis=1))
    assert set(np.unique(features)) == {np.float32(0), 1 / np.float32(0.75)}
    assert (features == 0).mean() == pytest.approx(0.25, abs=0.02)
    assert not np.array_equal(features[0], features[1])


def test_a_step_makes_captions_likelier_by_their_weights(model, views):
    model.compile(keras.optimizers.SGD(0.05), SmoothedCrossentropy(), jit_compile=False)
    inputs, targets, weights, _ = next(batches_of(model, views, batch_size=7).of_epoch(0))
    assert (weights > 0).any() and (weights < 0).any()

    def weighted_log_prob():
        log_probs = keras.ops.convert_to_numpy(keras.ops.log_softmax(model(inputs)))
        return (weights * np.take_along_axis(log_probs, targets[..., None], -1)[..., 0]).sum()

    before = weighted_log_prob()
    model.train_on_batch(inputs, targets, weights)
    assert weighted_log_prob() > before
