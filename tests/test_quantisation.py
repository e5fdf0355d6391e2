import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import build_tiny_encoder

from captioning import __main__ as command
from captioning.export import export_decoder, export_encoder
from captioning.image_networks import build_encoder
from captioning.images import load_image
from captioning.inference import Decoder, Encoder
from captioning.model import build_caption_model
from captioning.networks import DECODER_LOOK, DECODER_STEP, ENCODER, read_network
from captioning.precision import has_bfloat16_units
from captioning.quantisation import quantise_decoder, quantise_encoder, quantise_if_harmless
from captioning.settings import DECODERS, Files, TrainingSettings
from captioning.text import START, Vocabulary

ROOT = Files().root


def build_convolutions() -> keras.Model:
    """All that an image network is made of: a convolution, one of single channels, a sum."""
    keras.utils.set_random_seed(0)
    images = keras.Input((32, 48, 3), dtype="uint8", name="images")
    stem = keras.layers.Rescaling(1 / 255)(images)
    stem = keras.layers.Conv2D(16, 3, strides=4, activation="relu")(stem)
    branch = keras.layers.SeparableConv2D(16, 3, padding="same", activation="relu")(stem)
    total = keras.layers.Add()([stem, branch])
    return keras.Model(images, keras.layers.Reshape((-1, 16))(total), name="encoder")


def cosines(received: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of feature maps (images, cells, feature_width), one an image."""
    received, expected = (maps.reshape(len(maps), -1) for maps in (received, expected))
    lengths = np.linalg.norm(received, axis=1) * np.linalg.norm(expected, axis=1)
    return (received * expected).sum(axis=1) / lengths


@pytest.fixture(scope="module")
def drawings(tiny_root):
    return sorted(Files(tiny_root).images.glob("*.jpg"))


@pytest.fixture(scope="module")
def quantised(drawings, tmp_path_factory):
    """The folders of an encoder of floats and of the same in integers."""
    folder = tmp_path_factory.mktemp("encoders")
    export_encoder(build_convolutions(), folder / "floats")
    quantise_encoder(folder / "floats", drawings[:12], folder / "integers")
    return folder / "floats", folder / "integers"


def test_a_quantised_encoder_sees_what_it_saw_before(quantised, drawings):
    images = np.stack([load_image(path, (32, 48)) for path in drawings[12:24]])
    floats, integers = (Encoder(folder)(images) for folder in quantised)
    assert cosines(integers, floats).min() > 0.99
    assert np.abs(integers - floats).max() > 0  # it is another one


def integer_weights(path: Path) -> list[np.ndarray]:
    return [
        operation.data
        for operation in read_network(path).get_ops()
        if operation.get_type_name() == "Constant"
        and operation.get_element_type().get_type_name() == "i8"
    ]


def test_its_weights_are_integers_of_seven_bits(quantised):
    weights = integer_weights(quantised[1] / ENCODER)
    assert {array.shape for array in weights} == {(16, 3, 3, 3), (16, 16, 1, 1)}
    assert all(-64 <= array.min() and array.max() <= 64 for array in weights)


def test_a_quantised_encoder_is_noted_as_the_same_in_another_form(quantised):
    floats, integers = (Encoder(folder).encoder_identity for folder in quantised)
    assert integers == f"{floats} int8"
    assert floats.startswith("encoder ")


def test_a_quantised_encoder_is_not_quantised_again(quantised, drawings, tmp_path):
    with pytest.raises(ValueError, match="is quantised already. To quantise it once more"):
        quantise_encoder(quantised[1], drawings[:2], tmp_path)


FEATURES = np.random.default_rng(0).random((24, 4, 5), dtype="float32")
VOCABULARY = Vocabulary([f"word{number}" for number in range(20)])


@pytest.fixture(scope="module", params=DECODERS)
def decoders(request, tmp_path_factory):
    """The folders of a decoder of floats and of the same in integers."""
    folder = tmp_path_factory.mktemp("decoders")
    keras.utils.set_random_seed(0)
    settings = TrainingSettings(embedding_units=8, units=12, heads=3, decoder=request.param)
    model = build_caption_model(len(VOCABULARY), FEATURES.shape[-1], settings)
    export_decoder(model, VOCABULARY, 7, folder / "floats", "Xception 0123456789abcdef")
    quantise_decoder(folder / "floats", VOCABULARY, FEATURES[:12], folder / "integers")
    return folder / "floats", folder / "integers"


def test_a_quantised_decoder_thinks_what_it_thought_before(decoders):
    words = np.random.default_rng(1).integers(4, len(VOCABULARY), (12, 2, 6))
    words[:, :, 0] = START
    found = []
    for folder in decoders:
        decoder = Decoder.load(folder, VOCABULARY)
        seen = decoder.look(FEATURES[12:])
        state = tuple(np.repeat(part, 2, axis=1) for part in decoder.nothing_said(12))
        log_probs = []
        for position in range(words.shape[2]):
            of_next, state = decoder.step(words[:, :, position], state, seen)
            log_probs.append(of_next.copy())
        found.append(np.stack(log_probs))
    floats, integers = found
    assert np.abs(integers - floats).max() > 0  # it is another one
    divergence = (np.exp(floats) * (floats - integers)).sum(axis=-1)
    assert divergence.mean() < 0.001  # in nats, of the 3 that its choice among 24 words is worth


def test_of_a_decoder_all_products_with_weights_become_integers_and_nothing_else(decoders):
    for name in (DECODER_LOOK, DECODER_STEP):
        floats, integers = (read_network(folder / name) for folder in decoders)
        quantised = [
            operation
            for operation in integers.get_ops()
            if operation.get_type_name() == "FakeQuantize"
        ]
        for operation in quantised:
            users = [each.get_node() for each in operation.output(0).get_target_inputs()]
            assert {user.get_type_name() for user in users} == {"MatMul"}
        products = [
            operation
            for operation in floats.get_ops()
            if operation.get_type_name() == "MatMul"
            and operation.input_value(1).get_node().get_type_name() in ("Constant", "Convert")
        ]
        assert len(integer_weights(decoders[1] / name)) == len(products) > 0


def test_a_quantised_decoder_keeps_what_is_noted_of_it(decoders):
    floats, integers = (Decoder.load(folder, VOCABULARY) for folder in decoders)
    assert integers.encoder_identity == floats.encoder_identity == "Xception 0123456789abcdef"
    assert integers.longest_caption == 7


def test_a_quantised_decoder_is_not_quantised_again(decoders, tmp_path):
    with pytest.raises(ValueError, match="is quantised already. To quantise it once more, export"):
        quantise_decoder(decoders[1], VOCABULARY, FEATURES[:2], tmp_path)


@pytest.fixture
def root(tiny_root, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(tiny_root, root)
    assert command.main(["--root", str(root), "check"]) == 0
    return root


def copy_networks(monkeypatch):
    """In the place of quantising them."""

    def copy(names, source, target):
        for path in (source / name for name in names):
            for suffix in (".xml", ".bin"):
                shutil.copy(path.with_suffix(suffix), target)

    monkeypatch.setattr(
        "captioning.quantisation.quantise_encoder",
        lambda source, image_paths, target: copy([ENCODER], source, target),
    )
    monkeypatch.setattr(
        "captioning.quantisation.quantise_decoder",
        lambda source, vocabulary, features, target: copy(
            [DECODER_LOOK, DECODER_STEP], source, target
        ),
    )


def test_networks_that_cost_nothing_are_kept(root, monkeypatch, capsys):
    copy_networks(monkeypatch)

    def write_another(source, image_paths, target):
        assert len(image_paths) == 24 and all(path.exists() for path in image_paths)
        export_encoder(build_tiny_encoder(), target)
        another = target / ENCODER
        another.write_text(another.read_text() + "<!-- another -->")

    monkeypatch.setattr("captioning.quantisation.quantise_encoder", write_another)
    assert command.main(["--root", str(root), "quantise"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    before, after = line.removesuffix(": kept").removeprefix("development CIDEr ").split(", ")
    assert before.removesuffix(" before") == after.removesuffix(" after")
    assert "another" in (Files(root).models / ENCODER).read_text()
    assert not list(Files(root).models.glob("saving-*"))


def test_whichever_is_in_floats_is_quantised(root, monkeypatch):
    """Encoder and decoder; then the decoder, exported anew, beside an encoder of integers."""
    files = Files(root)
    monkeypatch.setattr("captioning.quantisation.TOLERANCE", 1.0)
    quantise_if_harmless(files)
    encoder = files.models / ENCODER
    before = encoder.read_bytes()
    with pytest.raises(ValueError, match="Encoder and decoder in .* are quantised already"):
        quantise_if_harmless(files)
    assert command.main(["--root", str(root), "export"]) == 0
    assert not integer_weights(files.models / DECODER_STEP)
    quantise_if_harmless(files)
    assert integer_weights(files.models / DECODER_STEP)
    assert encoder.read_bytes() == before


def test_networks_that_cost_quality_are_not_kept(root, monkeypatch, capsys):
    def write_blind(source, image_paths, target):
        images = keras.Input((32, 48, 3), dtype="uint8", name="images")
        grey = keras.layers.AveragePooling2D(8)(keras.layers.Rescaling(0.0, offset=1.0)(images))
        blind = keras.Model(images, keras.layers.Reshape((4, 18))(grey), name="encoder")
        monkeypatch.setattr("captioning.export.fingerprint", lambda model: fingerprint)
        export_encoder(blind, target)

    models = Files(root).models
    _, fingerprint = Encoder(models).encoder_identity.split()
    before = {path: path.read_bytes() for path in models.glob("*.bin")}
    assert len(before) == 3
    copy_networks(monkeypatch)
    monkeypatch.setattr("captioning.quantisation.quantise_encoder", write_blind)
    assert command.main(["--root", str(root), "quantise"]) == 1
    assert "Encoder and decoder stay as they are" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in models.glob("*.bin")} == before


@pytest.mark.parametrize(("after", "kept"), [(0.5751, True), (0.5749, False)])
def test_half_a_point_of_cider_may_be_lost(after, kept, root, monkeypatch):
    files = Files(root)
    copy_networks(monkeypatch)
    scores = iter([0.58, after])
    monkeypatch.setattr(
        "captioning.quantisation.evaluate", lambda *_, **__: ({}, {"CIDEr": next(scores)})
    )
    if kept:
        assert quantise_if_harmless(files) == (0.58, after)
    else:
        with pytest.raises(ValueError, match=r"0.51 .*58.00 before, 57.49 after.* than 0.5\."):
            quantise_if_harmless(files)


def test_both_encoders_are_scored_on_maps_made_alike(root, monkeypatch):
    """Those in feature_maps.bin may be of another precision, or another processor."""
    files = Files(root)
    copy_networks(monkeypatch)
    files.feature_maps.write_bytes(bytes(files.feature_maps.stat().st_size))
    before, after = quantise_if_harmless(files)
    assert before == after > 0


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_no_feature_map_is_open_when_their_folder_is_removed(root, monkeypatch):
    """Windows would refuse. Seen on Linux, where a process lists what it has mapped."""
    copy_networks(monkeypatch)
    seen = []

    def look_and_move(source, target):
        open_files = Path("/proc/self/maps").read_text()
        maps = ("calibration.bin", "before.bin", "after.bin")
        seen.append(any(name in open_files for name in maps))

    monkeypatch.setattr("captioning.quantisation.replace_network", look_and_move)
    quantise_if_harmless(Files(root))
    assert seen == [False] * 3


@pytest.mark.real
def test_every_fast_path_agrees_with_keras_in_float32_on_photographs(shared, tmp_path):
    """Whole maps of the examples, by their cosine."""
    (weights,) = (shared / "xception").glob("*.h5")
    xception = build_encoder("Xception", weights)
    paths = sorted((ROOT / "examples").glob("*.jpg"))
    images = np.stack([load_image(path, (299, 299)) for path in paths[:8]])
    expected = xception.predict(images, verbose=0)
    export_encoder(xception, tmp_path)
    assert cosines(Encoder(tmp_path)(images), expected).min() > 0.99999
    if has_bfloat16_units():
        assert cosines(Encoder(tmp_path, "bf16")(images), expected).min() > 0.999
    quantise_encoder(tmp_path, paths[8:], tmp_path / "integers")
    assert cosines(Encoder(tmp_path / "integers")(images), expected).min() > 0.95
