"""Image networks of Keras as encoders, with random weights."""

from urllib.error import URLError

import keras
import numpy as np
import pytest

from captioning.export.keras_to_openvino import export_encoder
from captioning.inference.encoder import Encoder
from captioning.models.image_encoder import (
    build_encoder,
    build_split_encoder,
    find_image_size,
    find_keras_name,
)

PREPROCESSING = {
    "MobileNetV2": keras.applications.mobilenet_v2.preprocess_input,  # scales to [-1, 1]
    "VGG16": keras.applications.vgg16.preprocess_input,  # blue first, means subtracted
    "EfficientNetB0": lambda images: images,  # contains its preprocessing
}
CELLS_AND_WIDTH = {"MobileNetV2": (49, 1280), "VGG16": (49, 512), "EfficientNetB0": (49, 1280)}


@pytest.fixture(scope="module")
def built():
    """Network name -> encoder, built once."""
    keras.utils.set_random_seed(0)
    return {name: build_encoder(name, weights=None) for name in PREPROCESSING}


@pytest.fixture(scope="module")
def images():
    """Noise with more red than blue: an encoder that swaps the channels fails."""
    random = np.random.default_rng(0)
    return (random.random((2, 224, 224, 3)) * [255, 120, 30]).astype("uint8")


@pytest.mark.slow
@pytest.mark.parametrize("name", PREPROCESSING)
def test_the_exported_encoder_computes_what_keras_computes_after_its_own_preprocessing(
    name, built, images, tmp_path
):
    (network,) = [layer for layer in built[name].layers if isinstance(layer, keras.Model)]
    expected = network.predict(PREPROCESSING[name](images.astype("float32")), verbose=0)
    expected = expected.reshape(2, *CELLS_AND_WIDTH[name])

    export_encoder(built[name], tmp_path)
    encoder = Encoder(tmp_path)
    assert encoder.image_size == (224, 224)
    assert encoder.encoder_id.split()[0] == name
    feature_maps = encoder(images)
    assert feature_maps.shape == expected.shape
    np.testing.assert_allclose(feature_maps, expected, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("side", "names"),
    {
        224: "ConvNeXtTiny DenseNet121 EfficientNetB0 EfficientNetV2B0 MobileNet MobileNetV2 "
        "MobileNetV3Large MobileNetV3Small NASNetMobile ResNet50 ResNet152V2 VGG16 VGG19",
        240: "EfficientNetB1 EfficientNetV2B1",
        299: "InceptionResNetV2 InceptionV3 Xception",
        331: "NASNetLarge",
        384: "EfficientNetV2S",
        480: "EfficientNetV2L EfficientNetV2M",
        600: "EfficientNetB7",
    }.items(),
)
def test_images_have_the_size_that_the_network_was_trained_on(side, names):
    for name in names.split():
        assert find_image_size(name) == (side, side)


def test_every_network_of_keras_has_a_known_size():
    with pytest.raises(ValueError) as caught:
        find_keras_name("AlexNet")
    listed = str(caught.value).partition("Choose one of ")[2].rstrip(".").split(", ")
    assert len(listed) >= 40  # as of Keras 3.15
    assert {"Xception", "ResNet50V2", "ConvNeXtXLarge", "MobileNetV3Small"} <= set(listed)
    assert all(224 <= find_image_size(name)[0] <= 600 for name in listed)


def test_a_name_may_be_in_capital_or_small_letters():
    assert find_keras_name("resnet50v2") == "ResNet50V2"
    assert find_image_size("XCEPTION") == (299, 299)


@pytest.mark.parametrize("name", ["AlexNet", "imagenet_utils", ""])
def test_the_error_of_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=f"got {name}. Choose one of .*Xception"):
        build_encoder(name)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match='"imagenet" or a file of VGG16 weights, got .*gone.h5'
    ):
        build_encoder("vgg16", tmp_path / "gone.h5")


def test_weights_come_from_a_file(built, tmp_path):
    (network,) = [layer for layer in built["VGG16"].layers if isinstance(layer, keras.Model)]
    network.save_weights(tmp_path / "my.weights.h5")
    loaded = build_encoder("VGG16", tmp_path / "my.weights.h5")
    for weight, expected in zip(loaded.weights, built["VGG16"].weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_weights_of_another_network_and_damaged_ones_are_refused(built, tmp_path):
    (network,) = [layer for layer in built["VGG16"].layers if isinstance(layer, keras.Model)]
    network.save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "damaged.weights.h5").write_text("no weights")
    for name in ("other", "damaged"):
        message = f"Expected weights of ResNet50V2 in .*{name}.weights.h5, got another or a damaged"
        with pytest.raises(ValueError, match=message):
            build_encoder("ResNet50V2", tmp_path / f"{name}.weights.h5")


def test_weights_that_keras_would_scale_wrongly_are_refused(built, tmp_path):
    (network,) = [
        layer for layer in built["EfficientNetB0"].layers if isinstance(layer, keras.Model)
    ]
    normalization = network.get_layer(index=2)
    means, variances = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    normalization.set_weights([np.array(means), np.array(variances), np.array(0)])
    network.save_weights(tmp_path / "my.weights.h5")
    with pytest.raises(
        ValueError, match='Expected "imagenet" for the ImageNet weights of EfficientNetB0'
    ):
        build_encoder("EfficientNetB0", tmp_path / "my.weights.h5")


def test_the_error_of_a_failed_download_names_the_folder_for_the_file(monkeypatch):
    def offline(include_top, **_):
        if include_top:
            raise ValueError("(224, 224, 3)")
        try:
            raise URLError("no route")
        except URLError:
            raise Exception("URL fetch failure")  # noqa: B904 (as Keras does it)

    monkeypatch.setattr(keras.applications, "VGG16", offline)
    with pytest.raises(ConnectionError, match="VGG16 .*URL fetch failure.* ~/.keras/models"):
        build_encoder("VGG16")


def test_an_error_other_than_a_failed_download_is_raised_as_it_is(monkeypatch):
    def broken(include_top, **_):
        raise ValueError("(224, 224, 3)") if include_top else TypeError("a bug")

    monkeypatch.setattr(keras.applications, "VGG16", broken)
    with pytest.raises(TypeError, match="a bug"):
        build_encoder("VGG16")


def test_a_keras_that_names_no_size_is_an_error_with_advice(monkeypatch):
    def silent(**_):
        raise ValueError("Invalid input shape.")

    monkeypatch.setattr(keras.applications, "VGG16", silent)
    with pytest.raises(RuntimeError, match="names the image size of VGG16, got Keras"):
        find_image_size("VGG16")


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [1, 3])
def test_a_split_encoder_computes_the_same_in_two_steps(images, tmp_path, blocks):
    keras.utils.set_random_seed(0)
    split = build_split_encoder("mobilenetv2", None, blocks)
    sums = [layer for layer in split.last_blocks.layers if isinstance(layer, keras.layers.Add)]
    assert len(sums) == blocks
    _, rows, columns, width = split.last_blocks.input_shape
    maps = split.backbone.predict(images, verbose=0)
    assert maps.shape == (2, rows * columns, width)
    grids = split.last_blocks.predict(maps.reshape(2, rows, columns, width), verbose=0)
    whole = split.whole.predict(images, verbose=0)
    np.testing.assert_allclose(grids.reshape(whole.shape), whole, atol=1e-5)

    split.save_weights(tmp_path / "network.weights.h5")
    again = build_encoder("MobileNetV2", tmp_path / "network.weights.h5")
    np.testing.assert_array_equal(again.predict(images, verbose=0), whole)


@pytest.mark.parametrize(
    ("name", "blocks", "number"), [("VGG16", 1, 0), ("MobileNetV2", 10, 10), ("ResNet50", 16, 16)]
)
def test_a_network_with_too_few_residual_blocks_is_not_split(name, blocks, number):
    expected = f"more than {blocks} residual blocks, got {name} with {number}"
    with pytest.raises(ValueError, match=expected):
        build_split_encoder(name, None, blocks)
