import keras
import numpy as np
import pytest

from captioning.models.caption_model import (
    DECODER,
    FEATURE_EXTRACTOR,
    SEQUENCE_PROCESSOR,
    build_caption_model,
)
from captioning.settings import DECODERS, TrainingSettings
from captioning.training.losses import SmoothedCrossentropy

VOCABULARY_SIZE = 23
CAPTIONS = [
    [[1, 4, 5, 6, 2], [1, 7, 2]],
    [[1, 8, 9, 10, 11, 12, 2], [1, 4, 4, 2]],
    [[1, 22, 2], [1, 13, 14, 2]],
]


def settings_of(decoder, **changes):
    sizes = {"embedding_units": 8, "units": 12, "heads": 3, **changes}
    return TrainingSettings(decoder=decoder, **sizes)


@pytest.fixture(scope="module", params=DECODERS)
def model(request):
    keras.utils.set_random_seed(0)
    return build_caption_model(VOCABULARY_SIZE, 5, settings_of(request.param))


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(0).normal(size=(len(CAPTIONS), 4, 5)).astype("float32")


def padded(captions):
    longest = max(len(ids) for image_captions in captions for ids in image_captions)
    return np.array(
        [
            [[*ids, *[0] * (longest - len(ids))] for ids in image_captions]
            for image_captions in captions
        ],
        "int32",
    )


def words_and_targets():
    return (
        padded([[ids[:-1] for ids in image_captions] for image_captions in CAPTIONS]),
        padded([[ids[1:] for ids in image_captions] for image_captions in CAPTIONS]),
    )


def logits_of(model, features, words):
    """(images, captions, length, vocabulary_size)"""
    logits = model.predict_on_batch({"features": features, "words": words})
    return logits.reshape(*words.shape, -1)


def prefixes():
    """The classic way: each caption expanded into its prefixes, a row each, with the next word."""
    return [
        (image, ids[:end], ids[end])
        for image, image_captions in enumerate(CAPTIONS)
        for ids in image_captions
        for end in range(1, len(ids))
    ]


def test_the_model_is_made_of_three_named_parts(model):
    shapes = {name: tensor.shape for name, tensor in model.input.items()}
    assert shapes == {"features": (None, None, 5), "words": (None, None, None)}
    assert model.output_shape == (None, None, VOCABULARY_SIZE)
    names = [layer.name for layer in model.layers if layer.name not in model.input]
    assert names == ["embedding", "feature_extractor", "sequence_processor", "decoder", "logits"]
    assert isinstance(model.get_layer(DECODER).get_layer("merge"), keras.layers.Add)


def test_one_pass_equals_one_prefix_per_row(model, features):
    """Same logits, same loss."""
    loss = SmoothedCrossentropy(label_smoothing=0.1)
    words, targets = words_and_targets()
    one_pass = logits_of(model, features, words)
    one_pass_loss = loss(targets, one_pass, (targets != 0).astype("float32"))

    rows = [image for image, _, _ in prefixes()]
    next_words = np.array([next_word for *_, next_word in prefixes()])
    all_positions = logits_of(
        model, features[rows], padded([[prefix] for _, prefix, _ in prefixes()])
    )
    last = [len(prefix) - 1 for _, prefix, _ in prefixes()]
    expanded = all_positions[np.arange(len(rows)), 0, last]
    expanded_loss = loss(next_words, expanded, np.ones(len(rows)))

    np.testing.assert_allclose(one_pass[targets != 0], expanded, atol=1e-5)
    assert float(one_pass_loss) == pytest.approx(float(expanded_loss), rel=1e-5)


@pytest.mark.parametrize("decoder", DECODERS)
def test_one_pass_takes_the_same_training_step_as_one_prefix_per_row(features, decoder):
    def step(inputs, targets, weights):
        keras.utils.set_random_seed(0)
        model = build_caption_model(VOCABULARY_SIZE, 5, settings_of(decoder, dropout=0.0))
        model.compile(keras.optimizers.SGD(0.1), SmoothedCrossentropy(), jit_compile=False)
        images = len(targets)
        model.train_on_batch(inputs, targets.reshape(images, -1), weights.reshape(images, -1))
        return model.get_weights()

    words, targets = words_and_targets()
    one_pass = step(
        {"features": features, "words": words}, targets, (targets != 0).astype("float32")
    )
    expanded = padded([[prefix] for _, prefix, _ in prefixes()])
    targets, weights = np.zeros_like(expanded), np.zeros(expanded.shape, "float32")
    for index, (_, prefix, next_word) in enumerate(prefixes()):
        targets[index, 0, len(prefix) - 1] = next_word
        weights[index, 0, len(prefix) - 1] = 1
    rows = [image for image, _, _ in prefixes()]
    one_prefix_per_row = step({"features": features[rows], "words": expanded}, targets, weights)
    for one, other in zip(one_pass, one_prefix_per_row, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_what_follows_a_position_does_not_change_it(model, features):
    words, _ = words_and_targets()
    changed = words.copy()
    changed[:, :, 2:] = 3
    before, after = logits_of(model, features, words), logits_of(model, features, changed)
    np.testing.assert_allclose(after[:, :, :2], before[:, :, :2], atol=1e-5)
    assert np.abs(after[:, :, 2:] - before[:, :, 2:]).max() > 1e-3


def test_a_batch_is_its_images_and_an_image_is_its_captions(model, features):
    together = logits_of(model, features, words_and_targets()[0])
    for image, image_captions in enumerate(CAPTIONS):
        for caption, ids in enumerate(image_captions):
            alone = logits_of(model, features[image : image + 1], padded([[ids[:-1]]]))
            np.testing.assert_allclose(
                together[image, caption, : len(ids) - 1], alone[0, 0], atol=1e-5
            )


def test_each_caption_is_read_by_the_lstm_of_keras(model):
    sequence_processor = model.get_layer(SEQUENCE_PROCESSOR)
    embedded = np.random.default_rng(1).normal(size=(2, 3, 7, 8)).astype("float32")
    states = sequence_processor.predict_on_batch(embedded)
    assert states.shape == (2, 3 * 7, 12)
    lstm = sequence_processor.get_layer("lstm").layer
    expected = lstm((8**0.5 * embedded).reshape(6, 7, 8))
    np.testing.assert_allclose(states.reshape(6, 7, 12), expected, atol=1e-5)


def test_every_image_cell_counts_and_their_order_does_not(model, features):
    words, _ = words_and_targets()
    logits = logits_of(model, features, words)
    np.testing.assert_allclose(logits_of(model, features[:, ::-1], words), logits, atol=1e-5)
    for cell in range(features.shape[1]):
        changed = features.copy()
        changed[:, cell] += 1
        assert np.abs(logits_of(model, changed, words) - logits).max() > 1e-3


def test_attention_tells_apart_maps_with_one_average(features):
    """The merge model sees the average only; the attention model sees the cells."""
    words, _ = words_and_targets()
    contrasts = features + np.array([3, -3, 0, 0], "float32")[:, None]
    for decoder, differs in (("merge", False), ("attention", True)):
        keras.utils.set_random_seed(0)
        model = build_caption_model(VOCABULARY_SIZE, 5, settings_of(decoder))
        difference = logits_of(model, contrasts, words) - logits_of(model, features, words)
        assert (np.abs(difference).max() > 1e-3) == differs


def test_the_image_never_enters_the_lstm(model):
    nodes = {node.operation.name: node for each in model._nodes_by_depth.values() for node in each}
    ancestors, waiting = set(), [SEQUENCE_PROCESSOR]
    while waiting:
        name = waiting.pop()
        ancestors.add(name)
        waiting += [parent.operation.name for parent in nodes[name].parent_nodes]
    assert ancestors == {"sequence_processor", "embedding", "words"}


def test_the_decoder_sees_the_features_only_after_they_are_projected_once_per_image(model):
    for tensor in model.get_layer(DECODER).inputs:
        assert 5 not in tensor.shape
    assert model.get_layer(FEATURE_EXTRACTOR).inputs[0].shape == (None, None, 5)


def test_a_saved_model_gives_the_same_logits(model, features, tmp_path):
    words, _ = words_and_targets()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        logits_of(loaded, features, words), logits_of(model, features, words)
    )


def test_lower_precision_computes_nearly_the_same_with_float32_weights(model, features):
    words, _ = words_and_targets()
    rounded = build_caption_model(VOCABULARY_SIZE, 5, settings_of(model.name), "mixed_bfloat16")
    rounded.set_weights(model.get_weights())
    assert {weight.dtype for weight in rounded.weights} == {"float32"}
    expected, received = (logits_of(each, features, words) for each in (model, rounded))
    assert received.dtype == np.float32
    # bfloat16 has 8 bits, so a rounding errs by 1/256; a dozen of them follow one another.
    np.testing.assert_allclose(received, expected, atol=12 / 256 * np.abs(expected).max())
