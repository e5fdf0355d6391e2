import json
import shutil
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from tiny_world import build_tiny_encoder

from captioning.data.vocabulary import START, Vocabulary
from captioning.export.keras_to_openvino import export_decoder, export_encoder, to_decoder
from captioning.inference.decoder import Decoder
from captioning.inference.decoding import find_best_captions
from captioning.inference.encoder import Encoder
from captioning.inference.network_files import read_network
from captioning.models.caption_model import build_caption_model
from captioning.models.image_encoder import build_encoder
from captioning.settings import SearchSettings, TrainingSettings

WORDS = [f"word{number}" for number in range(20)]
SETTINGS = TrainingSettings(embedding_units=8, units=12, heads=3)
# Exported weights are float16 and have three digits; the log-probabilities here are near -3.
TOLERANCE = 5e-3


@pytest.fixture(scope="module", params=["merge", "attention"])
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(0)
    vocabulary = Vocabulary(WORDS)
    model = build_caption_model(len(vocabulary), 5, replace(SETTINGS, decoder=request.param))
    export_decoder(model, vocabulary, longest_caption=7, folder=folder)
    return model, vocabulary, folder


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(0).normal(size=(6, 4, 5)).astype("float32")


def test_the_exported_decoder_scores_every_word_as_the_keras_model_does(exported, features):
    model, vocabulary, folder = exported
    decoder = Decoder.load(folder, vocabulary)
    words = np.random.default_rng(1).integers(4, len(vocabulary), (6, 2, 9)).astype("int32")
    words[:, :, 0] = START
    expected = keras.ops.log_softmax(model({"features": features, "words": words}))
    expected = keras.ops.convert_to_numpy(expected).reshape(*words.shape, -1)
    image_context = decoder.prefill(features)
    state = tuple(np.repeat(part, 2, axis=1) for part in decoder.initial_state(6))
    for position in range(words.shape[2]):
        log_probs, state = decoder.step(words[:, :, position], state, image_context)
        np.testing.assert_allclose(log_probs, expected[:, :, position], atol=TOLERANCE)


def test_the_exported_step_gives_the_attention_of_the_keras_model(exported, features):
    model, vocabulary, folder = exported
    loaded, in_memory = Decoder.load(folder, vocabulary), to_decoder(model, vocabulary, 7)
    ids = np.array([[START, 5]] * 6)
    weights = []
    for decoder in (loaded, in_memory):
        state = tuple(np.repeat(part, 2, axis=1) for part in decoder.initial_state(6))
        *_, attention = decoder.step_with_attention(ids, state, decoder.prefill(features))
        weights.append(attention)
    if model.name == "merge":
        assert weights == [None, None]
        return
    np.testing.assert_allclose(*weights, atol=TOLERANCE)
    assert weights[0].shape == (6, 2, 4)  # images, beams, cells
    np.testing.assert_allclose(weights[0].sum(axis=2), 1, atol=1e-5)

    words = ids[:, :, None]
    decoder = model.get_layer("decoder")
    layer = keras.Model(decoder.inputs, decoder.get_layer("attention").output)
    embedded = model.get_layer("embedding")(words)
    states = model.get_layer("sequence_processor")(embedded)
    heads = layer([*model.get_layer("feature_extractor")(features), states])
    expected = keras.ops.convert_to_numpy(heads).mean(axis=1)
    np.testing.assert_allclose(weights[0], expected, atol=TOLERANCE)


def test_the_decoder_in_memory_and_the_exported_one_give_the_same_captions(exported, features):
    model, vocabulary, folder = exported
    in_memory = find_best_captions(to_decoder(model, vocabulary, longest_caption=7), features)
    loaded = find_best_captions(Decoder.load(folder, vocabulary), features)
    assert [caption.text for caption in in_memory] == [caption.text for caption in loaded]
    assert [caption.log_prob for caption in in_memory] == pytest.approx(
        [caption.log_prob for caption in loaded], abs=8 * TOLERANCE
    )


def test_the_exported_networks_hold_no_einsum(exported):
    """OpenVINO would copy keys and values for every word, and NNCF would leave them in floats."""
    for name in ("decoder_prefill.xml", "decoder_step.xml"):
        operations = read_network(exported[2] / name).get_ops()
        type_names = [operation.get_type_name() for operation in operations]
        assert "Einsum" not in type_names
        assert "MatMul" in type_names


def test_the_state_does_not_grow_from_word_to_word(exported, features):
    decoder = Decoder.load(exported[2], exported[1])
    shapes = []
    image_context, state = decoder.prefill(features), decoder.initial_state(6)
    for _ in range(5):
        shapes.append([part.shape for part in state])
        _, state = decoder.step(np.full((6, 1), START), state, image_context)
    assert shapes == [shapes[0]] * 5


def test_the_log_probability_of_a_caption_is_that_of_the_keras_model(exported, features):
    model, vocabulary, folder = exported
    captions = find_best_captions(
        Decoder.load(folder, vocabulary), features, SearchSettings(3, 0.0)
    )
    for row, caption in enumerate(captions):
        ids = vocabulary.encode(caption.text)
        ids = ids if len(ids) - 2 < 7 else ids[:-1]  # cut off at the longest caption: no end
        words = np.array([[ids[:-1]]])
        log_probs = keras.ops.log_softmax(model({"features": features[[row]], "words": words}))
        log_probs = keras.ops.convert_to_numpy(log_probs)[0]
        expected = log_probs[np.arange(len(ids) - 1), ids[1:]].sum()
        assert caption.log_prob == pytest.approx(expected, abs=len(ids) * TOLERANCE)


def test_an_image_has_the_same_caption_alone_and_among_others(exported, features):
    decoder = Decoder.load(exported[2], exported[1])
    together = [caption.text for caption in find_best_captions(decoder, features)]
    alone = [find_best_captions(decoder, features[[row]])[0].text for row in range(len(features))]
    assert together == alone


def test_no_features_give_no_captions(exported):
    decoder = Decoder.load(exported[2], exported[1])
    assert find_best_captions(decoder, np.zeros((0, 4, 5), "float32")) == []


def test_no_caption_is_longer_than_the_longest_in_training(exported, features):
    for caption in find_best_captions(Decoder.load(exported[2], exported[1]), features):
        assert len(caption.text.split()) <= 7


def test_a_vocabulary_of_the_same_words_in_another_order_is_refused(exported):
    with pytest.raises(ValueError, match="Expected the vocabulary") as caught:
        Decoder.load(exported[2], Vocabulary(WORDS[::-1]))
    assert exported[1].fingerprint in str(caught.value)


def test_networks_of_two_exports_are_refused(exported, tmp_path):
    _, vocabulary, folder = exported
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    keras.utils.set_random_seed(1)
    other = build_caption_model(len(vocabulary), 5, SETTINGS)
    export_decoder(other, vocabulary, longest_caption=7, folder=tmp_path / "other")
    for suffix in (".xml", ".bin"):
        name = f"decoder_prefill{suffix}"
        (tmp_path / "other" / name).replace(tmp_path / name)
    with pytest.raises(ValueError, match="of one export in .*got those of two. Fetch both"):
        Decoder.load(tmp_path, vocabulary)


@pytest.mark.parametrize("content", [b"", b"<net>", None])
def test_damaged_model_files_are_named(exported, tmp_path, content):
    _, vocabulary, folder = exported
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    if content is None:
        (tmp_path / "decoder_step.bin").unlink()
    else:
        (tmp_path / "decoder_step.xml").write_bytes(content)
    with pytest.raises(ValueError, match="decoder_step.xml"):
        Decoder.load(tmp_path, vocabulary)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no .*encoder.xml"):
        Encoder(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no .*decoder_prefill.xml"):
        Decoder.load(tmp_path, Vocabulary(WORDS))


def test_the_exported_encoder_gives_the_features_of_the_keras_model(tmp_path):
    model = build_tiny_encoder()
    export_encoder(model, tmp_path)
    encoder = Encoder(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype="uint8")
    expected = keras.ops.convert_to_numpy(model(images))
    assert encoder.image_size == (32, 48)
    assert encoder.feature_width == 18
    np.testing.assert_allclose(encoder(images), expected, atol=0.01)
    np.testing.assert_allclose(encoder(images[3:4]), expected[3:4], atol=0.01)


def test_an_encoder_of_an_older_version_is_refused(tmp_path):
    images = keras.Input((32, 48, 3), dtype="uint8")
    pixels = keras.layers.Rescaling(1 / 255)(images)
    averages = keras.layers.GlobalAveragePooling2D()(pixels)
    export_encoder(keras.Model(images, averages), tmp_path)
    with pytest.raises(ValueError, match="Expected a network of the shapes"):
        Encoder(tmp_path)


def test_an_export_sends_no_telemetry(exported):
    """Keras uses OpenVINO's converter, which would import its telemetry and send a report."""
    assert "openvino.tools.ovc" in sys.modules
    assert "openvino_telemetry" not in sys.modules


def test_nothing_but_the_exported_files_is_left_in_the_folder(exported):
    assert sorted(path.name for path in exported[2].iterdir()) == [
        "decoder_prefill.bin",
        "decoder_prefill.xml",
        "decoder_step.bin",
        "decoder_step.xml",
    ]


@pytest.mark.slow
@pytest.mark.real
def test_xception_scales_its_input_and_keeps_its_features_when_exported(shared, tmp_path):
    (weights,) = (shared / "xception").glob("*.h5")
    model = build_encoder("Xception", weights)
    export_encoder(model, tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3), dtype="uint8")

    plain = keras.applications.Xception(include_top=False, weights=str(weights))
    scaled = keras.applications.xception.preprocess_input(images.astype("float32"))
    expected = plain.predict(scaled, verbose=0).reshape(2, 100, 2048)

    feature_maps = Encoder(tmp_path)(images)
    assert feature_maps.shape == (2, 100, 2048)
    expected, features = expected.mean(1), feature_maps.mean(1)
    cosine = (expected * features).sum(1) / (
        np.linalg.norm(expected, axis=1) * np.linalg.norm(features, axis=1)
    )
    assert cosine.min() > 0.9999


def test_the_metadata_names_no_folder_of_the_machine(exported, tmp_path):
    text = (exported[2] / "decoder_step.xml").read_text()
    assert json.dumps(str(exported[2]))[1:-1] not in text
    assert "/tmp" not in text
