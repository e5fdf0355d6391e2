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
from captioning.training.cross_entropy import SmoothedCrossentropy

VOCABULARY_SIZE = 23
CAPTIONS = [
    [[1, 4, 5, 6, 2], [1, 7, 2]],
    [[1, 8, 9, 10, 11, 12, 2], [1, 4, 4, 2]],
    [[1, 22, 2], [1, 13, 14, 2]],
]


def make_settings(decoder, **changes):
    sizes = {"embedding_units": 8, "units": 12, "heads": 3, **changes}
    return TrainingSettings(decoder=decoder, **sizes)


@pytest.fixture(scope="module", params=DECODERS)
def model(request):
    keras.utils.set_random_seed(0)
    return build_caption_model(VOCABULARY_SIZE, 5, make_settings(request.param))


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(0).normal(size=(len(CAPTIONS), 4, 5)).astype("float32")


def pad(captions):
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
        pad([[ids[:-1] for ids in image_captions] for image_captions in CAPTIONS]),
        pad([[ids[1:] for ids in image_captions] for image_captions in CAPTIONS]),
    )


def predict_logits(model, features, words):
    """Logits (images, captions, length, vocabulary_size)."""
    logits = model.predict_on_batch({"features": features, "words": words})
    return logits.reshape(*words.shape, -1)


def prefixes():
    """Every prefix of every caption, as in the classic training: image, prefix, next word."""
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
    """The logits and the loss are the same."""
    loss = SmoothedCrossentropy(label_smoothing=0.1)
    words, targets = words_and_targets()
    one_pass = predict_logits(model, features, words)
    one_pass_loss = loss(targets, one_pass, (targets != 0).astype("float32"))

    rows = [image for image, _, _ in prefixes()]
    next_words = np.array([next_word for *_, next_word in prefixes()])
    all_positions = predict_logits(
        model, features[rows], pad([[prefix] for _, prefix, _ in prefixes()])
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
        model = build_caption_model(VOCABULARY_SIZE, 5, make_settings(decoder, dropout=0.0))
        model.compile(keras.optimizers.SGD(0.1), SmoothedCrossentropy(), jit_compile=False)
        images = len(targets)
        model.train_on_batch(inputs, targets.reshape(images, -1), weights.reshape(images, -1))
        return model.get_weights()

    words, targets = words_and_targets()
    one_pass = step(
        {"features": features, "words": words}, targets, (targets != 0).astype("float32")
    )
    expanded = pad([[prefix] for _, prefix, _ in prefixes()])
    targets, weights = np.zeros_like(expanded), np.zeros(expanded.shape, "float32")
    for index, (_, prefix, next_word) in enumerate(prefixes()):
        targets[index, 0, len(prefix) - 1] = next_word
        weights[index, 0, len(prefix) - 1] = 1
    rows = [image for image, _, _ in prefixes()]
    one_prefix_per_row = step({"features": features[rows], "words": expanded}, targets, weights)
    for weights, expected in zip(one_pass, one_prefix_per_row, strict=True):
        np.testing.assert_allclose(weights, expected, atol=1e-5)


def test_later_words_do_not_change_the_logits_of_a_position(model, features):
    words, _ = words_and_targets()
    changed = words.copy()
    changed[:, :, 2:] = 3
    before, after = predict_logits(model, features, words), predict_logits(model, features, changed)
    np.testing.assert_allclose(after[:, :, :2], before[:, :, :2], atol=1e-5)
    assert np.abs(after[:, :, 2:] - before[:, :, 2:]).max() > 1e-3


def test_each_caption_has_the_same_logits_alone_and_in_a_batch(model, features):
    together = predict_logits(model, features, words_and_targets()[0])
    for image, image_captions in enumerate(CAPTIONS):
        for caption, ids in enumerate(image_captions):
            alone = predict_logits(model, features[image : image + 1], pad([[ids[:-1]]]))
            np.testing.assert_allclose(
                together[image, caption, : len(ids) - 1], alone[0, 0], atol=1e-5
            )


def test_the_lstm_of_keras_reads_each_caption(model):
    sequence_processor = model.get_layer(SEQUENCE_PROCESSOR)
    embedded = np.random.default_rng(1).normal(size=(2, 3, 7, 8)).astype("float32")
    states = sequence_processor.predict_on_batch(embedded)
    assert states.shape == (2, 3 * 7, 12)
    lstm = sequence_processor.get_layer("lstm").layer
    expected = lstm((8**0.5 * embedded).reshape(6, 7, 8))
    np.testing.assert_allclose(states.reshape(6, 7, 12), expected, atol=1e-5)


def test_every_cell_affects_the_logits_and_the_order_of_the_cells_does_not(model, features):
    words, _ = words_and_targets()
    logits = predict_logits(model, features, words)
    np.testing.assert_allclose(predict_logits(model, features[:, ::-1], words), logits, atol=1e-5)
    for cell in range(features.shape[1]):
        changed = features.copy()
        changed[:, cell] += 1
        assert np.abs(predict_logits(model, changed, words) - logits).max() > 1e-3


def test_attention_distinguishes_maps_with_the_same_average(features):
    """The merge model uses only the average; the attention model uses the cells."""
    words, _ = words_and_targets()
    contrasts = features + np.array([3, -3, 0, 0], "float32")[:, None]
    for decoder, is_different in (("merge", False), ("attention", True)):
        keras.utils.set_random_seed(0)
        model = build_caption_model(VOCABULARY_SIZE, 5, make_settings(decoder))
        difference = predict_logits(model, contrasts, words) - predict_logits(
            model, features, words
        )
        assert (np.abs(difference).max() > 1e-3) == is_different


def test_the_image_never_enters_the_lstm(model):
    all_nodes = [node for nodes in model._nodes_by_depth.values() for node in nodes]
    nodes = {node.operation.name: node for node in all_nodes}
    ancestors, waiting = set(), [SEQUENCE_PROCESSOR]
    while waiting:
        name = waiting.pop()
        ancestors.add(name)
        waiting += [parent.operation.name for parent in nodes[name].parent_nodes]
    assert ancestors == {"sequence_processor", "embedding", "words"}


def test_the_decoder_gets_features_only_after_the_feature_extractor_has_projected_them(model):
    for tensor in model.get_layer(DECODER).inputs:
        assert 5 not in tensor.shape
    assert model.get_layer(FEATURE_EXTRACTOR).inputs[0].shape == (None, None, 5)


def test_a_saved_model_gives_the_same_logits(model, features, tmp_path):
    words, _ = words_and_targets()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        predict_logits(loaded, features, words), predict_logits(model, features, words)
    )


def test_lower_precision_computes_nearly_the_same_with_float32_weights(model, features):
    words, _ = words_and_targets()
    rounded = build_caption_model(VOCABULARY_SIZE, 5, make_settings(model.name), "mixed_bfloat16")
    rounded.set_weights(model.get_weights())
    assert {weight.dtype for weight in rounded.weights} == {"float32"}
    expected = predict_logits(model, features, words)
    logits = predict_logits(rounded, features, words)
    assert logits.dtype == np.float32
    # bfloat16 has 8 bits: a dozen roundings, one after the other, err by up to 1/256 each.
    np.testing.assert_allclose(logits, expected, atol=12 / 256 * np.abs(expected).max())
