import keras
import numpy as np
import pytest
from tiny_world import build_tiny_encoder

from captioning.data.feature_store import FeatureStore
from captioning.export import provide_encoder as module
from captioning.export.keras_to_openvino import export_encoder
from captioning.export.provide_encoder import has_encoder, provide_encoder
from captioning.inference.encoder import Encoder
from captioning.inference.network_files import ENCODER, read_network
from captioning.inference.openvino_runtime import openvino, read_encoder_id
from captioning.paths import Paths


@pytest.fixture
def shipped(tiny_root, monkeypatch):
    """The encoder of the tiny world, in place of the shipped one."""
    monkeypatch.setenv("CAPTIONING_MODEL", str(tiny_root))
    return Paths(tiny_root).models


def test_the_shipped_encoder_is_copied_to_a_root_without_one(shipped, tmp_path):
    encoder = provide_encoder(tmp_path / "models")
    assert encoder.image_size == (32, 48)
    for name in ("encoder.xml", "encoder.bin"):
        assert (tmp_path / "models" / name).read_bytes() == (shipped / name).read_bytes()


def test_an_existing_encoder_is_kept(shipped, monkeypatch):
    monkeypatch.setattr("shutil.copyfile", lambda *_: pytest.fail("copied"))
    before = (shipped / "encoder.xml").stat()
    assert provide_encoder(shipped).feature_width == 18
    assert (shipped / "encoder.xml").stat() == before


def test_an_interrupted_copy_is_repeated(shipped, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", lambda *_: (_ for _ in ()).throw(OSError))
        with pytest.raises(OSError):
            provide_encoder(tmp_path)
    assert provide_encoder(tmp_path).feature_width == 18
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.bin", "encoder.xml"]


@pytest.fixture(params=["feature_maps.bin", "development_feature_maps.bin"])
def paths_in_use(request, shipped, tmp_path):
    """A root folder with an encoder and the feature maps that it made."""
    paths = Paths(tmp_path)
    export_encoder(_build_tiny_encoder("Xception"), paths.models)
    maps = FeatureStore(tmp_path / request.param, Encoder(paths.models).encoder_id)
    maps.append("000.jpg", np.ones((4, 18)))
    maps.save()
    return paths


@pytest.mark.parametrize("name", [None, "vgg16"])
def test_an_encoder_whose_feature_maps_exist_is_not_replaced_by_another(
    paths_in_use, name, monkeypatch
):
    def build(name, weights):
        assert name == "Xception"  # VGG16 is refused before its weights are downloaded
        encoder = build_tiny_encoder()
        return keras.Model(encoder.input, keras.layers.Dense(18)(encoder.output), name=name)

    monkeypatch.setattr("captioning.models.image_encoder.build_encoder", build)
    before = (paths_in_use.models / ENCODER).read_bytes()
    with pytest.raises(
        ValueError, match="the encoder that made .*feature_maps.bin, got .* would replace it"
    ):
        provide_encoder(paths_in_use.models, name, weights="imagenet")
    assert (paths_in_use.models / ENCODER).read_bytes() == before


def test_an_interrupted_extraction_with_weights_resumes_with_the_same_command(
    shipped, tmp_path, monkeypatch
):
    def build(name, weights):
        return _build_tiny_encoder(name)

    monkeypatch.setattr("captioning.models.image_encoder.build_encoder", build)
    paths = Paths(tmp_path)
    encoder = provide_encoder(paths.models, weights="my.h5")
    maps = FeatureStore(paths.feature_maps, encoder.encoder_id)
    maps.append("000.jpg", np.ones((4, 18)))
    maps.save()
    again = provide_encoder(paths.models, weights="my.h5")
    assert again.encoder_id == encoder.encoder_id


@pytest.mark.parametrize("present", ["Xception", "ResNet50V2", None])
def test_with_weights_a_new_encoder_of_the_same_name_is_built(present, tmp_path, monkeypatch):
    if present:
        export_encoder(_build_tiny_encoder(present), tmp_path)
    built = []

    def build(name, weights):
        built.append((name, weights))
        return build_tiny_encoder()

    monkeypatch.setattr("captioning.models.image_encoder.build_encoder", build)
    assert provide_encoder(tmp_path, weights="my.h5").encoder_id.startswith("encoder ")
    assert built == [(present or "Xception", "my.h5")]


def test_an_encoder_of_the_requested_name_is_kept(shipped):
    before = (shipped / "encoder.xml").stat()
    assert provide_encoder(shipped, "Encoder").encoder_id.startswith("encoder ")
    assert (shipped / "encoder.xml").stat() == before


def test_with_another_name_a_new_encoder_is_built(shipped, tmp_path, monkeypatch):
    provide_encoder(tmp_path)
    built = []

    def build(name, weights):
        built.append((name, weights))
        return _build_tiny_encoder(name)

    monkeypatch.setattr("captioning.models.image_encoder.build_encoder", build)
    assert provide_encoder(tmp_path, "VGG16").encoder_id.startswith("VGG16 ")
    assert provide_encoder(tmp_path, "VGG16").encoder_id.startswith("VGG16 ")
    assert built == [("VGG16", "imagenet")]


def test_an_encoder_without_an_id_has_the_default_name(shipped, monkeypatch):
    monkeypatch.setattr(module, "read_encoder_id", lambda network: None)
    assert has_encoder(shipped, "xception")
    assert not has_encoder(shipped, "VGG16")


def test_encoders_of_equal_weights_have_equal_fingerprints_after_any_export(tmp_path):
    encoder_ids = []
    for number, value in enumerate((0.1, 0.1, 0.1 + 1e-7)):  # all the same in float16
        images = keras.Input((8, 8, 3), dtype="uint8")
        fill = keras.initializers.Constant(value)
        scaled = keras.layers.Rescaling(1 / 255)(images)
        grid = keras.layers.Conv2D(4, 8, kernel_initializer=fill)(scaled)
        cells = keras.layers.Reshape((1, 4))(grid)
        export_encoder(keras.Model(images, cells, name="Small"), tmp_path / str(number))
        encoder_ids.append(Encoder(tmp_path / str(number)).encoder_id)
    first, same, other = encoder_ids
    assert first == same != other
    assert first.split()[0] == other.split()[0] == "Small"
    network = read_network(tmp_path / "0" / ENCODER)
    openvino.save_model(network, tmp_path / "again.xml", compress_to_fp16=False)
    assert read_encoder_id(read_network(tmp_path / "again.xml")) == first


def _build_tiny_encoder(name):
    encoder = build_tiny_encoder()
    return keras.Model(encoder.inputs, encoder.outputs, name=name)
