import json
import pickle
from threading import Event

import numpy as np
import pytest
from PIL import Image

from captioning.data.augmentation import AUGMENTATIONS
from captioning.data.feature_store import FeatureStore
from captioning.data.images import UnreadableImage
from captioning.inference.encode_images import encode_images
from captioning.inference.extract_features import average_features, extract_feature_maps
from captioning.inference.networks import Encoder
from captioning.paths import Paths


@pytest.fixture
def encoder(tiny_root):
    return Encoder(Paths(tiny_root).models)


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
        self.encoder_id = encoder.encoder_id
        self.stop_after = stop_after
        self.seen = 0

    def __call__(self, images):
        if self.seen >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        return self.encoder(images)


def keep_map(path, image_name, feature_map):
    """As if an extraction had been stopped after this map."""
    maps = FeatureStore(path)
    maps.append(image_name, feature_map)
    maps.save()


def test_every_image_gets_its_own_features_in_order(encoder, image_paths):
    encoded = [each for batch in encode_images(encoder, image_paths) for each in batch]
    assert [path for path, _ in encoded] == image_paths
    for path, features in encoded:
        ((_, alone),) = next(encode_images(encoder, [path]))
        np.testing.assert_allclose(features, alone, atol=1e-4)
    assert np.ptp([features for _, features in encoded], axis=0).max() > 0.01


def test_an_unreadable_image_yields_its_error_in_its_place(encoder, image_paths):
    image_paths[1].write_text("no image")
    image_paths[2].unlink()
    found = [found for batch in encode_images(encoder, image_paths[:4]) for _, found in batch]
    assert [type(each) for each in found] == [
        np.ndarray, UnreadableImage, FileNotFoundError, np.ndarray,
    ]  # fmt: skip


def test_no_images_yield_nothing(encoder):
    assert list(encode_images(encoder, [])) == []


def test_an_extraction_looks_at_each_image_in_the_way_that_it_is_given(
    encoder, image_paths, image_names, tmp_path
):
    view = AUGMENTATIONS[2]
    maps = extract_feature_maps(
        encoder, tmp_path, image_names, tmp_path / "maps.bin", view.load_image
    )
    for path in image_paths:
        (expected,) = encoder(view.load_image(path, encoder.image_size)[None])
        np.testing.assert_allclose(maps[path.name], expected, rtol=1e-2, atol=1e-3)
        ((_, plain),) = next(encode_images(encoder, [path]))
        assert np.abs(expected - plain).max() > 0.01


def test_averages_are_a_plain_dict_of_float32_arrays(encoder, image_paths, image_names, tmp_path):
    maps = extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "maps.bin")
    features = average_features(maps, tmp_path / "features.p")
    stored = pickle.loads((tmp_path / "features.p").read_bytes())
    assert type(stored) is dict
    assert list(stored) == list(features) == [path.name for path in image_paths]
    for name, array in stored.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, maps[name].astype("float32").mean(0), atol=1e-6)


def test_averages_of_images_that_came_later_are_added(encoder, image_paths, image_names, tmp_path):
    path = tmp_path / "features.p"
    average_features(
        extract_feature_maps(encoder, tmp_path, image_names[:5], tmp_path / "maps.bin"), path
    )
    first = path.stat().st_mtime_ns
    maps = extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "maps.bin")
    assert len(average_features(maps, path)) == 21
    second = path.stat().st_mtime_ns
    assert second > first
    average_features(maps, path)
    assert path.stat().st_mtime_ns == second


def test_what_was_extracted_is_not_extracted_again(encoder, image_paths, image_names, tmp_path):
    extract_feature_maps(encoder, tmp_path, image_names[:5], tmp_path / "maps.bin")
    counting = Counting(encoder)
    maps = extract_feature_maps(counting, tmp_path, image_names, tmp_path / "maps.bin")
    assert counting.seen == 1 + 16  # one to see that it is the same encoder
    assert len(maps) == 21


def test_an_image_that_is_named_twice_is_looked_at_once(
    encoder, image_paths, image_names, tmp_path
):
    counting = Counting(encoder)
    twice = [*image_names[:9], *image_names[:9]]
    maps = extract_feature_maps(counting, tmp_path, twice, tmp_path / "maps.bin")
    assert list(maps) == image_names[:9]
    assert counting.seen == 9


def test_an_extraction_that_was_stopped_goes_on(encoder, image_paths, image_names, tmp_path):
    path = tmp_path / "maps.bin"
    with pytest.raises(KeyboardInterrupt):
        extract_feature_maps(Counting(encoder, stop_after=16), tmp_path, image_names, path)
    assert len(FeatureStore(path)) == 16
    counting = Counting(encoder)
    stopped = extract_feature_maps(counting, tmp_path, image_names, path)
    assert counting.seen == 1 + 5
    whole = extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "whole.bin")
    assert stopped.keys() == whole.keys()
    for name in whole:
        np.testing.assert_allclose(stopped[name], whole[name], atol=1e-3)


def test_an_extraction_that_is_stopped_while_it_writes_keeps_what_is_written(
    encoder, image_names, tmp_path, monkeypatch
):
    append = FeatureStore.append

    def stop_at_the_tenth(maps, image_name, feature_map):
        if image_name == image_names[9]:
            raise KeyboardInterrupt
        append(maps, image_name, feature_map)

    monkeypatch.setattr(FeatureStore, "append", stop_at_the_tenth)
    path = tmp_path / "maps.bin"
    with pytest.raises(KeyboardInterrupt):
        extract_feature_maps(encoder, tmp_path, image_names, path)
    assert list(FeatureStore(path)) == image_names[:9]


def test_the_next_images_are_seen_while_maps_are_written(
    encoder, image_names, tmp_path, monkeypatch
):
    append, seen_twice, waited = FeatureStore.append, Event(), []

    class Telling(Counting):
        def __call__(self, images):
            if self.seen:
                seen_twice.set()
            return super().__call__(images)

    def append_when_more_was_seen(maps, image_name, feature_map):
        waited.append(seen_twice.wait(timeout=20))
        append(maps, image_name, feature_map)

    monkeypatch.setattr(FeatureStore, "append", append_when_more_was_seen)
    maps = extract_feature_maps(Telling(encoder), tmp_path, image_names, tmp_path / "maps.bin")
    assert waited == [True] * len(image_names)
    assert list(maps) == image_names


def test_features_of_another_encoder_are_refused(encoder, image_paths, image_names, tmp_path):
    keep_map(
        tmp_path / "maps.bin",
        image_paths[0].name,
        np.linspace(-1, 1, 72, dtype="float32").reshape(4, 18),
    )
    with pytest.raises(ValueError, match="another encoder, or of other images: it disagrees on 00"):
        extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "maps.bin")


def test_features_of_another_width_are_refused(encoder, image_paths, image_names, tmp_path):
    keep_map(tmp_path / "maps.bin", image_paths[0].name, np.ones((4, 2048), "float32"))
    with pytest.raises(ValueError, match="made with another encoder"):
        extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "maps.bin")


def test_features_of_an_encoder_of_another_name_or_weights_are_refused(
    encoder, image_paths, image_names, tmp_path
):
    path = tmp_path / "maps.bin"
    extract_feature_maps(encoder, tmp_path, image_names[:2], path)
    assert FeatureStore(path).encoder_id == encoder.encoder_id
    alike = Counting(encoder)
    alike.encoder_id = "Other 0123456789abcdef"
    with pytest.raises(ValueError, match="Wanted: encoder .*Received: Other 0123456789abcdef"):
        extract_feature_maps(alike, tmp_path, image_names, path)
    assert alike.seen == 0


def test_features_of_the_encoder_in_another_form_are_refused(
    encoder, image_paths, image_names, tmp_path
):
    path = tmp_path / "maps.bin"
    extract_feature_maps(encoder, tmp_path, image_names[:2], path)
    quantised = Counting(encoder)
    quantised.encoder_id = f"{encoder.encoder_id} int8"
    with pytest.raises(ValueError, match="Received: encoder [0-9a-f]{16} int8"):
        extract_feature_maps(quantised, tmp_path, image_names, path)


def test_features_that_agree_to_a_cosine_of_nine_tenths_are_of_another_encoder(
    encoder, image_paths, image_names, tmp_path
):
    ((_, found),) = next(encode_images(encoder, image_paths[:1]))
    noise = np.random.default_rng(0).normal(size=found.shape)
    noise -= (noise * found).sum() / (found**2).sum() * found  # at a right angle
    noise *= 0.48 * np.linalg.norm(found) / np.linalg.norm(noise)  # a cosine of 0.9
    keep_map(tmp_path / "maps.bin", image_names[0], found + noise)
    with pytest.raises(ValueError, match="it disagrees on 00"):
        extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "maps.bin")


def test_features_from_before_encoders_were_noted_are_gone_on_with(
    encoder, image_paths, image_names, tmp_path
):
    path = tmp_path / "maps.bin"
    extract_feature_maps(encoder, tmp_path, image_names[:2], path)
    index = json.loads((tmp_path / "maps.bin.json").read_text())
    del index["encoder"]
    (tmp_path / "maps.bin.json").write_text(json.dumps(index))
    maps = extract_feature_maps(encoder, tmp_path, image_names[:3], path)
    assert (len(maps), maps.encoder_id) == (3, None)


def test_an_unreadable_image_is_left_out_and_named(
    encoder, image_paths, image_names, tmp_path, capsys
):
    image_paths[3].write_text("no image")
    maps = extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "maps.bin")
    assert len(maps) == 20
    assert "left out" in capsys.readouterr().out


def test_a_folder_of_images_that_is_gone_is_told_once_and_not_for_each_image(encoder, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone, where the images were"):
        extract_feature_maps(encoder, tmp_path / "gone", ["a.png", "b.png"], tmp_path / "maps.bin")
    assert not (tmp_path / "maps.bin").exists()


def test_an_image_in_a_folder_below_is_known_by_its_path(encoder, tmp_path):
    for name, colour in (("white/a.png", "white"), ("red/a.png", "red")):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (40, 40), colour).save(tmp_path / name)
    names = ["red/a.png", "white/a.png"]
    maps = extract_feature_maps(encoder, tmp_path, names, tmp_path / "maps.bin")
    assert list(maps) == names
    assert maps["white/a.png"].max() == pytest.approx(0, abs=0.01)
    assert maps["red/a.png"].max() > 1


def test_averages_of_other_maps_are_made_anew(encoder, image_paths, image_names, tmp_path):
    path = tmp_path / "features.p"
    average_features({image_names[0]: np.ones((4, 18), "float16")}, path)
    maps = extract_feature_maps(encoder, tmp_path, image_names[:3], tmp_path / "maps.bin")
    features = average_features(maps, path)
    np.testing.assert_array_equal(
        features[image_names[0]], maps[image_names[0]].mean(0, dtype="float32")
    )
    assert list(features) == image_names[:3]


def test_an_image_in_memory_may_come_many_times(encoder, image_paths):
    with Image.open(image_paths[0]) as image:
        found = [found for batch in encode_images(encoder, [image] * 40) for _, found in batch]
    for each in found:
        np.testing.assert_allclose(each, found[0], atol=1e-4)
