import keras
import numpy as np
import pytest

from captioning.models.caption_model import DECODER, FEATURE_EXTRACTOR, build_caption_model
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
    longest = max(len(ids) for of_image in captions for ids in of_image)
    return np.array(
        [[[*ids, *[0] * (longest - len(ids))] for ids in of_image] for of_image in captions],
        "int32",
    )


def words_and_targets():
    return (
        padded([[ids[:-1] for ids in of_image] for of_image in CAPTIONS]),
        padded([[ids[1:] for ids in of_image] for of_image in CAPTIONS]),
    )


def logits_of(model, features, words):
    return keras.ops.convert_to_numpy(model({"features": features, "words": words}))


def prefixes():
    """The classic way: each caption expanded into its prefixes, a row each, with the next word."""
    return [
        (image, ids[:end], ids[end])
        for image, of_image in enumerate(CAPTIONS)
        for ids in of_image
        for end in range(1, len(ids))
    ]


def test_the_model_is_made_of_three_named_parts(model):
    shapes = {name: tensor.shape for name, tensor in model.input.items()}
    assert shapes == {"features": (None, None, 5), "words": (None, None, None)}
    assert model.output_shape == (None, None, None, VOCABULARY_SIZE)
    names = [layer.name for layer in model.layers if layer.name not in model.input]
    assert names == ["embedding", "feature_extractor", "sequence_processor", "decoder", "logits"]
    assert isinstance(model.get_layer(DECODER).get_layer("merge"), keras.layers.Add)


def test_one_pass_equals_one_prefix_a_row(model, features):
    """Teacher forcing scores every position at once; the classic way asks for one word a row. Same
    logits, same loss."""
    loss = SmoothedCrossentropy(label_smoothing=0.1)
    words, targets = words_and_targets()
    one_pass = logits_of(model, features, words)
    one_pass_loss = loss(targets, one_pass, (targets != 0).astype("float32"))

    rows = [image for image, _, _ in prefixes()]
    next_words = np.array([[[next_word]] for *_, next_word in prefixes()])
    all_positions = logits_of(
        model, features[rows], padded([[prefix] for _, prefix, _ in prefixes()])
    )
    last = [len(prefix) - 1 for _, prefix, _ in prefixes()]
    expanded = all_positions[np.arange(len(rows)), 0, last]
    expanded_loss = loss(next_words, expanded[:, None, None], np.ones((len(rows), 1, 1)))

    np.testing.assert_allclose(one_pass[targets != 0], expanded, atol=1e-6)
    assert float(one_pass_loss) == pytest.approx(float(expanded_loss), rel=1e-6)


@pytest.mark.parametrize("decoder", DECODERS)
def test_one_pass_takes_the_same_training_step_as_one_prefix_a_row(features, decoder):
    def stepped(inputs, targets, weights):
        keras.utils.set_random_seed(0)
        model = build_caption_model(VOCABULARY_SIZE, 5, settings_of(decoder, dropout=0.0))
        model.compile(keras.optimizers.SGD(0.1), SmoothedCrossentropy(), jit_compile=False)
        model.train_on_batch(inputs, targets, weights)
        return model.get_weights()

    words, targets = words_and_targets()
    one_pass = stepped(
        {"features": features, "words": words}, targets, (targets != 0).astype("float32")
    )
    expanded = padded([[prefix] for _, prefix, _ in prefixes()])
    targets, weights = np.zeros_like(expanded), np.zeros(expanded.shape, "float32")
    for index, (_, prefix, next_word) in enumerate(prefixes()):
        targets[index, 0, len(prefix) - 1] = next_word
        weights[index, 0, len(prefix) - 1] = 1
    rows = [image for image, _, _ in prefixes()]
    a_prefix_a_row = stepped({"features": features[rows], "words": expanded}, targets, weights)
    for one, other in zip(one_pass, a_prefix_a_row, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_what_follows_a_position_does_not_change_it(model, features):
    words, _ = words_and_targets()
    changed = words.copy()
    changed[:, :, 2:] = 3
    before, after = logits_of(model, features, words), logits_of(model, features, changed)
    np.testing.assert_allclose(after[:, :, :2], before[:, :, :2], atol=1e-6)
    assert np.abs(after[:, :, 2:] - before[:, :, 2:]).max() > 1e-3


def test_a_batch_is_its_images_and_an_image_is_its_captions(model, features):
    together = logits_of(model, features, words_and_targets()[0])
    for image, of_image in enumerate(CAPTIONS):
        for caption, ids in enumerate(of_image):
            alone = logits_of(model, features[image : image + 1], padded([[ids[:-1]]]))
            np.testing.assert_allclose(
                together[image, caption, : len(ids) - 1], alone[0, 0], atol=1e-6
            )


def test_every_image_cell_counts_and_their_order_does_not(model, features):
    words, _ = words_and_targets()
    logits = logits_of(model, features, words)
    np.testing.assert_allclose(logits_of(model, features[:, ::-1], words), logits, atol=1e-5)
    for cell in range(features.shape[1]):
        changed = features.copy()
        changed[:, cell] += 1
        assert np.abs(logits_of(model, changed, words) - logits).max() > 1e-3


def test_attention_sees_more_than_the_average_of_the_cells(features):
    """Cells moved apart from their average: the merge model cannot tell, the other can."""
    words, _ = words_and_targets()
    contrasts = features + np.array([3, -3, 0, 0], "float32")[:, None]
    for decoder, differs in (("merge", False), ("attention", True)):
        keras.utils.set_random_seed(0)
        model = build_caption_model(VOCABULARY_SIZE, 5, settings_of(decoder))
        difference = logits_of(model, contrasts, words) - logits_of(model, features, words)
        assert (np.abs(difference).max() > 1e-3) == differs


def test_the_image_never_enters_the_lstm(model):
    """What the sequence processor says does not depend on the image: it has no way to it."""
    (embedded,) = model.get_layer("sequence_processor").inputs
    ancestors, waiting = set(), [model.get_layer("sequence_processor")]
    nodes = {node.operation.name: node for of in model._nodes_by_depth.values() for node in of}
    while waiting:
        name = waiting.pop().name
        ancestors.add(name)
        waiting += [parent.operation for parent in nodes[name].parent_nodes]
    assert ancestors == {"sequence_processor", "embedding", "words"}
    assert embedded.shape[-1] == 8


def test_what_an_image_costs_is_computed_once(model):
    """No part of the decoder is as wide as the features: they are projected before."""
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
