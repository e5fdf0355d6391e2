import keras
import numpy as np
import pytest

from captioning.losses import SmoothedCrossentropy
from captioning.model import build_caption_model, build_encoder
from captioning.settings import TrainingSettings

VOCABULARY_SIZE = 23
CAPTIONS = [[1, 4, 5, 6, 2], [1, 7, 2], [1, 8, 9, 10, 11, 12, 2]]
SETTINGS = TrainingSettings(embedding_units=8, units=12)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return build_caption_model(VOCABULARY_SIZE, 5, SETTINGS)


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(0).normal(size=(len(CAPTIONS), 5)).astype("float32")


def padded(sequences):
    longest = max(map(len, sequences))
    return np.array([[*one, *[0] * (longest - len(one))] for one in sequences], "int32")


def test_the_parts_are_named(model):
    shapes = {name: tensor.shape for name, tensor in model.input.items()}
    assert shapes == {"features": (None, 5), "words": (None, None)}
    assert model.output_shape == (None, None, VOCABULARY_SIZE)
    names = [layer.name for layer in model.layers]
    parts = ("feature_extractor_", "sequence_processor_", "decoder_")
    assert all(name.startswith(parts) for name in names if name not in model.input)
    assert isinstance(model.get_layer("decoder_merge"), keras.layers.Add)


def test_one_pass_equals_one_prefix_a_row(model, features):
    """Teacher forcing scores every position at once; the classic way expands each caption into its
    prefixes, a row each, and asks for the next word. Same logits, same loss, same gradients."""
    loss = SmoothedCrossentropy(label_smoothing=0.1)

    words, targets = padded([ids[:-1] for ids in CAPTIONS]), padded([ids[1:] for ids in CAPTIONS])
    one_pass = keras.ops.convert_to_numpy(model({"features": features, "words": words}))
    one_pass_loss = loss(targets, one_pass, (targets != 0).astype("float32"))

    expanded = [
        (row, ids[:end], ids[end]) for row, ids in enumerate(CAPTIONS) for end in range(1, len(ids))
    ]
    prefix_rows = [row for row, _, _ in expanded]
    prefixes = padded([prefix for _, prefix, _ in expanded])
    next_words = np.array([next_word for *_, next_word in expanded])
    all_positions = keras.ops.convert_to_numpy(
        model({"features": features[prefix_rows], "words": prefixes})
    )
    last = [len(prefix) - 1 for _, prefix, _ in expanded]
    expanded_logits = all_positions[np.arange(len(expanded)), last]
    expanded_loss = loss(next_words[:, None], expanded_logits[:, None], np.ones((len(expanded), 1)))

    np.testing.assert_allclose(one_pass[targets != 0], expanded_logits, atol=1e-6)
    assert float(one_pass_loss) == pytest.approx(float(expanded_loss), abs=1e-6)


def test_one_pass_takes_the_same_training_step_as_one_prefix_a_row(features):
    def stepped(inputs, targets, weights):
        keras.utils.set_random_seed(0)
        settings = TrainingSettings(embedding_units=8, units=12, dropout=0.0)
        model = build_caption_model(VOCABULARY_SIZE, 5, settings)
        model.compile(keras.optimizers.SGD(1.0), SmoothedCrossentropy())
        model.train_on_batch(inputs, targets, weights)
        return model.get_weights()

    words, targets = padded([ids[:-1] for ids in CAPTIONS]), padded([ids[1:] for ids in CAPTIONS])
    one_pass = stepped(
        {"features": features, "words": words}, targets, (targets != 0).astype("float32")
    )
    expanded = [
        (row, ids[:end], ids[end]) for row, ids in enumerate(CAPTIONS) for end in range(1, len(ids))
    ]
    prefixes = padded([prefix for _, prefix, _ in expanded])
    targets, weights = np.zeros_like(prefixes), np.zeros(prefixes.shape, "float32")
    for index, (_, prefix, next_word) in enumerate(expanded):
        targets[index, len(prefix) - 1] = next_word
        weights[index, len(prefix) - 1] = 1
    a_prefix_a_row = stepped(
        {"features": features[[row for row, _, _ in expanded]], "words": prefixes}, targets, weights
    )
    for one, other in zip(one_pass, a_prefix_a_row, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_what_follows_a_position_does_not_change_it(model, features):
    words = padded([ids[:-1] for ids in CAPTIONS])
    changed = words.copy()
    changed[:, 2:] = 3
    before = keras.ops.convert_to_numpy(model({"features": features, "words": words}))
    after = keras.ops.convert_to_numpy(model({"features": features, "words": changed}))
    np.testing.assert_allclose(after[:, :2], before[:, :2], atol=1e-6)
    assert np.abs(after[:, 2:] - before[:, 2:]).max() > 1e-3


def test_a_batch_is_its_rows(model, features):
    words = padded([ids[:-1] for ids in CAPTIONS])
    together = keras.ops.convert_to_numpy(model({"features": features, "words": words}))
    for row, ids in enumerate(CAPTIONS):
        alone = model({"features": features[row : row + 1], "words": padded([ids[:-1]])})
        np.testing.assert_allclose(
            together[row, : len(ids) - 1], keras.ops.convert_to_numpy(alone)[0], atol=1e-6
        )


def test_the_image_never_enters_the_lstm(model):
    ancestors, waiting = set(), [model.get_layer("sequence_processor_lstm")]
    while waiting:
        layer = waiting.pop()
        ancestors.add(layer.name)
        tensors = layer.input if isinstance(layer.input, list) else [layer.input]
        waiting += [
            t._keras_history.operation for t in tensors if t._keras_history.operation is not layer
        ]
    assert ancestors == {
        "sequence_processor_lstm",
        "sequence_processor_dropout",
        "sequence_processor_embedding",
        "words",
    }


def test_a_saved_model_gives_the_same_logits(model, features, tmp_path):
    inputs = {"features": features, "words": padded([ids[:-1] for ids in CAPTIONS])}
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(loaded(inputs)), keras.ops.convert_to_numpy(model(inputs))
    )


def test_missing_encoder_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='"imagenet" or from a file. Received: .*gone.h5'):
        build_encoder(tmp_path / "gone.h5")
