import pickle

import numpy as np
import pytest
from PIL import Image

from captioning.features import encode_files, extract_features
from captioning.files import load_pickle, save_pickle
from captioning.inference import Encoder
from captioning.settings import Files


@pytest.fixture
def encoder(tiny_root):
    return Encoder(Files(tiny_root).models)


@pytest.fixture
def image_paths(tmp_path):
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{number:02}.png" for number in range(21)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (50, 60, 3), dtype="uint8")).save(path)
    return paths


@pytest.fixture
def image_names(image_paths):
    return [path.name for path in image_paths]


class Counting:
    """An encoder that counts the images it is shown, and may be stopped."""

    def __init__(self, encoder, stop_after=1000):
        self.encoder = encoder
        self.image_size = encoder.image_size
        self.stop_after = stop_after
        self.seen = 0

    def __call__(self, images):
        if self.seen >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        return self.encoder(images)


def test_every_image_gets_its_own_features_in_order(encoder, image_paths):
    encoded = [each for batch in encode_files(encoder, image_paths) for each in batch]
    assert [path for path, _ in encoded] == image_paths
    for path, features in encoded:
        ((_, alone),) = next(encode_files(encoder, [path]))
        np.testing.assert_allclose(features, alone, atol=1e-4)
    assert np.ptp([features for _, features in encoded], axis=0).max() > 0.01


def test_an_unreadable_image_yields_its_error_in_its_place(encoder, image_paths):
    image_paths[1].write_text("no image")
    image_paths[2].unlink()
    found = [found for batch in encode_files(encoder, image_paths[:4]) for _, found in batch]
    assert [type(each) for each in found] == [np.ndarray, ValueError, FileNotFoundError, np.ndarray]


def test_no_images_yield_nothing(encoder):
    assert list(encode_files(encoder, [])) == []


def test_the_file_is_a_plain_dict_of_float32_arrays(encoder, image_paths, image_names, tmp_path):
    features = extract_features(encoder, tmp_path, image_names, tmp_path / "features.p")
    stored = pickle.loads((tmp_path / "features.p").read_bytes())
    assert type(stored) is dict
    assert list(stored) == list(features) == [path.name for path in image_paths]
    for array in stored.values():
        assert array.dtype == np.float32
        assert array.shape == (72,)


def test_what_was_extracted_is_not_extracted_again(encoder, image_names, tmp_path):
    extract_features(encoder, tmp_path, image_names[:5], tmp_path / "features.p")
    counting = Counting(encoder)
    features = extract_features(counting, tmp_path, image_names, tmp_path / "features.p")
    assert counting.seen == 1 + 16  # one to see that it is the same encoder
    assert len(features) == 21


def test_an_extraction_that_was_stopped_goes_on(encoder, image_names, tmp_path):
    path = tmp_path / "features.p"
    with pytest.raises(KeyboardInterrupt):
        extract_features(Counting(encoder, stop_after=16), tmp_path, image_names, path)
    assert len(load_pickle(path)) == 16
    counting = Counting(encoder)
    stopped = extract_features(counting, tmp_path, image_names, path)
    assert counting.seen == 1 + 5
    whole = extract_features(encoder, tmp_path, image_names, tmp_path / "whole.p")
    assert stopped.keys() == whole.keys()
    for name in whole:
        np.testing.assert_allclose(stopped[name], whole[name], atol=1e-4)


def test_features_of_another_encoder_are_refused(encoder, image_paths, image_names, tmp_path):
    path = tmp_path / "features.p"
    save_pickle(path, {image_paths[0].name: np.linspace(0, 1, 72, dtype="float32")})
    with pytest.raises(ValueError, match="another encoder, or of other images: it disagrees on 00"):
        extract_features(encoder, tmp_path, image_names, path)


def test_features_of_another_width_are_refused(encoder, image_paths, image_names, tmp_path):
    path = tmp_path / "features.p"
    save_pickle(path, {image_paths[0].name: np.ones(2048, "float32")})
    with pytest.raises(ValueError, match="made with another encoder"):
        extract_features(encoder, tmp_path, image_names, path)


def test_an_unreadable_image_is_left_out_and_named(
    encoder, image_paths, image_names, tmp_path, capsys
):
    image_paths[3].write_text("no image")
    features = extract_features(encoder, tmp_path, image_names, tmp_path / "features.p")
    assert len(features) == 20
    assert "left out" in capsys.readouterr().out


def test_an_image_in_a_folder_below_is_known_by_its_path(encoder, tmp_path):
    for name, colour in (("white/a.png", "white"), ("red/a.png", "red")):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (40, 40), colour).save(tmp_path / name)
    names = ["red/a.png", "white/a.png"]
    features = extract_features(encoder, tmp_path, names, tmp_path / "features.p")
    assert list(features) == names
    assert features["white/a.png"].max() == pytest.approx(0, abs=0.01)
    assert features["red/a.png"].max() > 1
