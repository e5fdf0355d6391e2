import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny_world import build_tiny_encoder

from captioning.app import cli
from captioning.data.dataset import Dataset
from captioning.data.feature_store import FeatureStore
from captioning.data.images import load_image
from captioning.data.vocabulary import START, Vocabulary
from captioning.export.keras_to_openvino import export_decoder, export_encoder
from captioning.export.quantisation import (
    QualityLoss,
    quantise_decoder,
    quantise_encoder,
    quantise_within_tolerance,
)
from captioning.inference.decoder import Decoder
from captioning.inference.decoding import find_best_captions
from captioning.inference.encoder import Encoder
from captioning.inference.network_files import DECODER_PREFILL, DECODER_STEP, ENCODER, read_network
from captioning.inference.openvino_runtime import has_bfloat16_units
from captioning.models.caption_model import build_caption_model, build_ensemble
from captioning.models.image_encoder import build_encoder
from captioning.paths import Paths, find_model
from captioning.settings import DECODERS, TrainingSettings

ROOT = find_model()


def build_convolutions() -> keras.Model:
    """A model with a convolution, a depthwise convolution and a sum, as in an image network."""
    keras.utils.set_random_seed(0)
    images = keras.Input((32, 48, 3), dtype="uint8", name="images")
    stem = keras.layers.Rescaling(1 / 255)(images)
    stem = keras.layers.Conv2D(16, 3, strides=4, activation="relu")(stem)
    branch = keras.layers.SeparableConv2D(16, 3, padding="same", activation="relu")(stem)
    total = keras.layers.Add()([stem, branch])
    return keras.Model(images, keras.layers.Reshape((-1, 16))(total), name="encoder")


def cosines(maps: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The cosine between the feature maps (images, cells, feature_width) of each image."""
    maps, expected = maps.reshape(len(maps), -1), expected.reshape(len(expected), -1)
    lengths = np.linalg.norm(maps, axis=1) * np.linalg.norm(expected, axis=1)
    return (maps * expected).sum(axis=1) / lengths


@pytest.fixture(scope="module")
def drawings(tiny_root):
    return sorted(Paths(tiny_root).images.glob("*.jpg"))


@pytest.fixture(scope="module")
def quantised(drawings, tmp_path_factory):
    """The folders of an encoder in floats and of the same encoder in integers."""
    folder = tmp_path_factory.mktemp("encoders")
    export_encoder(build_convolutions(), folder / "floats")
    quantise_encoder(folder / "floats", drawings[:12], folder / "integers")
    return folder / "floats", folder / "integers"


def test_a_quantised_encoder_gives_nearly_the_same_feature_maps(quantised, drawings):
    images = np.stack([load_image(path, (32, 48)) for path in drawings[12:24]])
    floats, integers = (Encoder(folder)(images) for folder in quantised)
    assert cosines(integers, floats).min() > 0.99
    assert np.abs(integers - floats).max() > 0  # nearly, but not exactly


def test_activations_of_a_quantised_encoder_are_stored_unsigned(quantised, drawings, monkeypatch):
    stored = []
    monkeypatch.setattr("captioning.export.quantisation.store_unsigned", stored.append)
    floats, _ = quantised
    quantise_encoder(floats, drawings[:1], floats.parent / "once_more")
    (network,) = stored
    assert "FakeQuantize" in {operation.get_type_name() for operation in network.get_ops()}


def integer_weights(path: Path) -> list[np.ndarray]:
    return [
        operation.data
        for operation in read_network(path).get_ops()
        if operation.get_type_name() == "Constant"
        and operation.get_element_type().get_type_name() == "i8"
    ]


def test_quantised_weights_have_seven_bits_where_channels_are_summed(quantised):
    weights = {array.shape: array for array in integer_weights(quantised[1] / ENCODER)}
    depthwise = weights.pop((16, 1, 1, 3, 3))
    assert set(weights) == {(16, 3, 3, 3), (16, 16, 1, 1)}
    assert all(-64 <= array.min() and array.max() <= 64 for array in weights.values())
    assert depthwise.max() == 127


def test_a_quantised_encoder_keeps_its_id_and_adds_the_type(quantised):
    floats, integers = (Encoder(folder).encoder_id for folder in quantised)
    assert integers == f"{floats} int8"
    assert floats.startswith("encoder ")


FEATURES = np.random.default_rng(0).random((24, 4, 5), dtype="float32")
VOCABULARY = Vocabulary([f"word{number}" for number in range(20)])
ENCODER_ID = "Xception 0123456789abcdef"


@pytest.fixture(scope="module", params=DECODERS)
def decoders(request, tmp_path_factory):
    """The folders of a decoder in floats and of the same decoder in integers."""
    folder = tmp_path_factory.mktemp("decoders") / request.param
    export_decoder(build_decided_model(request.param), VOCABULARY, 7, folder / "floats", ENCODER_ID)
    quantise_decoder(folder / "floats", VOCABULARY, FEATURES[:12], folder / "integers")
    return folder / "floats", folder / "integers"


def build_decided_model(decoder: str, seed: int = 0) -> keras.Model:
    """A model that prefers some words, as a trained model does."""
    keras.utils.set_random_seed(seed)
    settings = TrainingSettings(embedding_units=8, units=12, heads=3, decoder=decoder)
    model = build_caption_model(len(VOCABULARY), FEATURES.shape[-1], settings)
    embedding = model.get_layer("embedding")
    embedding.set_weights([30 * weights for weights in embedding.get_weights()])
    return model


def divergence(expected: np.ndarray, log_probs: np.ndarray) -> float:
    """The Kullback-Leibler divergence of log-probabilities (..., words), in nats."""
    return (np.exp(expected) * (expected - log_probs)).sum(axis=-1).mean()


def test_a_quantised_decoder_gives_nearly_the_same_log_probabilities(decoders):
    words = np.random.default_rng(1).integers(4, len(VOCABULARY), (12, 2, 6))
    words[:, :, 0] = START
    results = []
    for folder in decoders:
        decoder = Decoder.load(folder, VOCABULARY)
        image_context = decoder.prefill(FEATURES[12:])
        state = tuple(np.repeat(part, 2, axis=1) for part in decoder.initial_state(12))
        log_probs = []
        for position in range(words.shape[2]):
            next_log_probs, state = decoder.step(words[:, :, position], state, image_context)
            log_probs.append(next_log_probs)
        results.append(np.stack(log_probs))
    floats, integers = results
    uniform = np.full_like(floats, -np.log(len(VOCABULARY)))
    assert 0 < divergence(floats, integers) < 0.02 * divergence(floats, uniform)


# The multiplications by weights in prefill and step. Attention: cells, average, keys, values; LSTM
# (two), queries, attended cells, gate, two after the merge, projection to the embedding, embedding.
# Merge: image; LSTM (two), dense, embedding.
PRODUCTS = {"attention": (4, 9), "merge": (1, 4)}


def test_only_multiplications_by_weights_become_integers_in_a_decoder(decoders):
    decoder = decoders[1].parent.name
    for name, products in zip((DECODER_PREFILL, DECODER_STEP), PRODUCTS[decoder], strict=True):
        users = [
            user.get_node().get_type_name()
            for operation in read_network(decoders[1] / name).get_ops()
            if operation.get_type_name() == "FakeQuantize"
            for user in operation.output(0).get_target_inputs()
        ]
        assert len(integer_weights(decoders[1] / name)) == products
        assert users == ["MatMul"] * products


def test_a_quantised_decoder_keeps_its_metadata(decoders):
    floats, integers = (Decoder.load(folder, VOCABULARY) for folder in decoders)
    assert integers.encoder_id == floats.encoder_id == ENCODER_ID
    assert integers.longest_caption == 7


@pytest.mark.parametrize("replaced", [DECODER_PREFILL, DECODER_STEP])
def test_a_decoder_with_one_quantised_file_is_quantised_completely(replaced, decoders, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(decoders[0], half)
    for suffix in (".xml", ".bin"):
        shutil.copy((decoders[1] / replaced).with_suffix(suffix), half)
    quantise_decoder(half, VOCABULARY, FEATURES[:12], tmp_path)
    assert all(integer_weights(tmp_path / name) for name in (DECODER_PREFILL, DECODER_STEP))
    find_best_captions(Decoder.load(tmp_path, VOCABULARY), FEATURES[:2])


def test_all_models_of_an_ensemble_are_quantised(tmp_path):
    models = [build_decided_model("attention", seed) for seed in (0, 1)]
    export_decoder(build_ensemble(models), VOCABULARY, 7, tmp_path / "floats")
    quantise_decoder(tmp_path / "floats", VOCABULARY, FEATURES[:4], tmp_path / "integers")
    for name, products in zip((DECODER_PREFILL, DECODER_STEP), PRODUCTS["attention"], strict=True):
        assert len(integer_weights(tmp_path / "integers" / name)) == 2 * products


@pytest.fixture
def root(tiny_root, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(tiny_root, root)
    assert cli.main(["--root", str(root), "check"]) == 0
    return root


def mark_networks(monkeypatch):
    """Replaces quantisation by a function that adds a comment to the files."""

    def mark(names, target):
        for path in (target / name for name in names):
            path.write_text(f"{path.read_text()}<!-- marked -->")

    monkeypatch.setattr(
        "captioning.export.quantisation.quantise_encoder",
        lambda source, image_paths, target: mark([ENCODER], target),
    )
    monkeypatch.setattr(
        "captioning.export.quantisation.quantise_decoder",
        lambda source, vocabulary, features, target: mark([DECODER_PREFILL, DECODER_STEP], target),
    )


def marked(models: Path) -> list[str]:
    return sorted(path.name for path in models.glob("*.xml") if "marked" in path.read_text())


def contents(models: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in models.iterdir() if path.suffix != ".keras"}


def test_quantised_networks_that_caption_as_well_are_kept(root, monkeypatch, capsys):
    mark_networks(monkeypatch)
    assert cli.main(["--root", str(root), "quantise"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    before, after = line.removesuffix(": kept").removeprefix("development CIDEr ").split(", ")
    assert before.removesuffix(" before") == after.removesuffix(" after")
    models = Paths(root).models
    assert marked(models) == [DECODER_PREFILL, DECODER_STEP, ENCODER]
    assert not [path.name for path in models.iterdir() if path.name.startswith(".")]


def test_training_images_calibrate_both_networks(root, monkeypatch):
    calibrated = {}
    monkeypatch.setattr(
        "captioning.export.quantisation.quantise_encoder",
        lambda source, image_paths, target: calibrated.update(paths=image_paths),
    )
    monkeypatch.setattr(
        "captioning.export.quantisation.quantise_decoder",
        lambda source, vocabulary, features, target: calibrated.update(features=features),
    )
    monkeypatch.setattr("captioning.export.quantisation.CALIBRATION_IMAGES", 9)
    monkeypatch.setattr("captioning.export.quantisation.DECODER_CALIBRATION_IMAGES", 5)
    paths = Paths(root)
    quantise_within_tolerance(paths)
    names = [path.name for path in calibrated["paths"]]
    assert len(set(names)) == 9
    assert set(names) < set(Dataset.load(paths.dataset).splits["train"])
    maps = FeatureStore(paths.feature_maps)
    expected = np.stack([maps[name] for name in names[:5]]).astype("float32")
    np.testing.assert_allclose(calibrated["features"], expected, atol=0.01)


@pytest.mark.slow
def test_only_networks_in_floats_are_quantised(root, monkeypatch):
    """First both networks; then the decoder, exported again; then the encoder."""
    paths = Paths(root)
    monkeypatch.setattr("captioning.export.quantisation.TOLERANCE", 1.0)
    floats = contents(paths.models)
    quantise_within_tolerance(paths)
    integers = contents(paths.models)
    assert all(floats[name] != integers[name] for name in floats if name.endswith(".bin"))
    with pytest.raises(ValueError, match="got both quantised"):
        quantise_within_tolerance(paths)

    assert cli.main(["--root", str(root), "export"]) == 0
    quantise_within_tolerance(paths)
    assert integer_weights(paths.models / DECODER_STEP)
    assert contents(paths.models)[ENCODER] == integers[ENCODER]

    for name in (ENCODER, Path(ENCODER).with_suffix(".bin").name):
        (paths.models / name).write_bytes(floats[name])
    before = contents(paths.models)
    quantise_within_tolerance(paths)
    after = contents(paths.models)
    assert {name for name in after if after[name] != before[name]} == {"encoder.xml", "encoder.bin"}


def test_networks_that_caption_worse_are_not_kept(root, monkeypatch, capsys):
    def write_blind_encoder(source, image_paths, target):
        images = keras.Input((32, 48, 3), dtype="uint8", name="images")
        grey = keras.layers.AveragePooling2D(8)(keras.layers.Rescaling(0.0, offset=1.0)(images))
        blind = keras.Model(images, keras.layers.Reshape((4, 18))(grey), name="encoder")
        monkeypatch.setattr(
            "captioning.export.keras_to_openvino.make_fingerprint", lambda model: fingerprint
        )
        export_encoder(blind, target)

    models = Paths(root).models
    _, fingerprint = Encoder(models).encoder_id.split()
    before = contents(models)
    mark_networks(monkeypatch)
    monkeypatch.setattr("captioning.export.quantisation.quantise_encoder", write_blind_encoder)
    assert cli.main(["--root", str(root), "quantise"]) == 1
    expected = "after) with decoder_prefill.xml, decoder_step.xml, encoder.xml in 8-bit integers"
    assert expected in capsys.readouterr().err
    assert contents(models) == before


def test_a_decoder_of_another_encoder_is_refused_before_anything_is_quantised(root, monkeypatch):
    paths = Paths(root)
    encoder = build_tiny_encoder()
    export_encoder(keras.Model(encoder.inputs, encoder.outputs, name="another"), paths.models)
    monkeypatch.setattr("captioning.export.quantisation.quantise_encoder", None)
    with pytest.raises(ValueError, match="Expected the encoder that the decoder was trained with"):
        quantise_within_tolerance(paths)


@pytest.mark.parametrize(("after", "kept"), [(0.5751, True), (0.5749, False)])
def test_at_most_half_a_point_of_cider_may_be_lost(after, kept, root, monkeypatch):
    paths = Paths(root)
    mark_networks(monkeypatch)
    scores = iter([0.58, after])
    monkeypatch.setattr(
        "captioning.export.quantisation.evaluate", lambda *_: {"CIDEr": next(scores)}
    )
    if kept:
        assert quantise_within_tolerance(paths) == (0.58, after)
    else:
        with pytest.raises(QualityLoss, match=r"at most 0.5, got 0.51 .58.00 before, 57.49 after"):
            quantise_within_tolerance(paths)
    assert bool(marked(paths.models)) == kept


def test_both_encoders_are_compared_on_maps_extracted_in_the_same_way(root, monkeypatch):
    """The maps in feature_maps.bin may have another precision."""
    paths = Paths(root)
    mark_networks(monkeypatch)
    paths.feature_maps.write_bytes(bytes(paths.feature_maps.stat().st_size))
    before, after = quantise_within_tolerance(paths)
    assert before == after > 0


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_no_feature_map_is_open_when_their_folder_is_removed(root, monkeypatch):
    """Windows would refuse to remove it. Linux lists the files that a process maps."""
    mark_networks(monkeypatch)
    any_open = []

    def check_open_files(*_):
        open_files = Path("/proc/self/maps").read_text()
        maps = ("calibration.bin", "before.bin", "after.bin")
        any_open.append(any(name in open_files for name in maps))

    monkeypatch.setattr("captioning.export.quantisation._require_tolerable", check_open_files)
    quantise_within_tolerance(Paths(root))
    assert any_open == [False]


@pytest.mark.slow
@pytest.mark.real
def test_lower_precisions_agree_with_keras_in_float32_on_photographs(shared, tmp_path):
    (weights,) = (shared / "xception").glob("*.h5")
    xception = build_encoder("Xception", weights)
    paths = sorted((ROOT / "examples").glob("*.jpg"))
    images = np.stack([load_image(path, (299, 299)) for path in paths[:8]])
    expected = xception.predict(images, verbose=0)
    export_encoder(xception, tmp_path)
    assert cosines(Encoder(tmp_path)(images), expected).min() > 0.99999
    if has_bfloat16_units():
        assert cosines(Encoder(tmp_path, "bf16")(images), expected).min() > 0.999
    photographs = tmp_path / "photographs"
    with zipfile.ZipFile(shared / "flickr8k" / "Flickr8k_Dataset.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][:100]
        archive.extractall(photographs, names)
    quantise_encoder(tmp_path, [photographs / name for name in names], tmp_path / "integers")
    integers = cosines(Encoder(tmp_path / "integers")(images), expected)
    assert integers.mean() > 0.97 and integers.min() > 0.9
