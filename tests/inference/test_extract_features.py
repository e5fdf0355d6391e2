import json
import pickle
from threading import Event

import numpy as np
import pytest
from PIL import Image

from captioning.data.augmentation import AUGMENTATIONS
from captioning.data.feature_store import FeatureStore, load_pooled_features
from captioning.data.images import UnreadableImage
from captioning.inference.extract_features import (
    encode_images,
    extract_feature_maps,
    extract_pooled_features,
    pool_features,
)
from captioning.paths import Paths


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


class CountingEncoder:
    """Counts the images it encodes, and raises KeyboardInterrupt after `stop_after` of them."""

    def __init__(self, encoder, stop_after=1000):
        self.encoder = encoder
        self.image_size = encoder.image_size
        self.encoder_id = encoder.encoder_id
        self.stop_after = stop_after
        self.encoded = 0

    def __call__(self, images):
        if self.encoded >= self.stop_after:
            raise KeyboardInterrupt
        self.encoded += len(images)
        return self.encoder(images)


def store_map(path, image_name, feature_map):
    """Writes the files of an extraction that was interrupted after this map."""
    maps = FeatureStore(path)
    maps.append(image_name, feature_map)
    maps.save()


def test_images_are_encoded_in_order(encoder, image_paths):
    encoded = [pair for batch in encode_images(encoder, image_paths) for pair in batch]
    assert [path for path, _ in encoded] == image_paths
    for path, features in encoded:
        ((_, alone),) = next(encode_images(encoder, [path]))
        np.testing.assert_allclose(features, alone, atol=1e-4)
    assert np.ptp([features for _, features in encoded], axis=0).max() > 0.01


def test_an_unreadable_image_yields_its_error_in_its_place(encoder, image_paths):
    image_paths[1].write_text("no image")
    image_paths[2].unlink()
    results = [result for batch in encode_images(encoder, image_paths[:4]) for _, result in batch]
    assert [type(result) for result in results] == [
        np.ndarray, UnreadableImage, FileNotFoundError, np.ndarray,
    ]  # fmt: skip


def test_no_images_give_no_batches(encoder):
    assert list(encode_images(encoder, [])) == []


def test_an_extraction_loads_each_image_with_the_given_function(
    encoder, image_paths, image_names, tmp_path
):
    augmentation = AUGMENTATIONS[2]
    maps = extract_feature_maps(
        encoder, tmp_path, image_names, tmp_path / "maps.bin", augmentation.load_image
    )
    for path in image_paths:
        (expected,) = encoder(augmentation.load_image(path, encoder.image_size)[None])
        np.testing.assert_allclose(maps[path.name], expected, rtol=1e-2, atol=1e-3)
        ((_, plain),) = next(encode_images(encoder, [path]))
        assert np.abs(expected - plain).max() > 0.01


def test_pooled_features_are_a_plain_dict_of_float32_means(
    encoder, image_paths, image_names, tmp_path
):
    maps = extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "maps.bin")
    features = pool_features(maps, Paths(tmp_path))
    stored = pickle.loads((tmp_path / "features.p").read_bytes())
    assert type(stored) is dict
    assert list(stored) == list(features) == [path.name for path in image_paths]
    for name, array in stored.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, maps[name].astype("float32").mean(0), atol=1e-6)


def test_pooled_features_of_new_images_are_added(encoder, image_paths, image_names, tmp_path):
    paths, path = Paths(tmp_path), tmp_path / "features.p"
    pool_features(
        extract_feature_maps(encoder, tmp_path, image_names[:5], tmp_path / "maps.bin"), paths
    )
    first = path.stat().st_mtime_ns
    maps = extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "maps.bin")
    assert len(pool_features(maps, paths)) == 21
    second = path.stat().st_mtime_ns
    assert second > first
    pool_features(maps, paths)
    assert path.stat().st_mtime_ns == second


def test_existing_maps_are_not_extracted_again(encoder, image_paths, image_names, tmp_path):
    extract_feature_maps(encoder, tmp_path, image_names[:5], tmp_path / "maps.bin")
    counting = CountingEncoder(encoder)
    maps = extract_feature_maps(counting, tmp_path, image_names, tmp_path / "maps.bin")
    assert counting.encoded == 1 + 16  # one to compare the encoders
    assert len(maps) == 21


def test_an_image_listed_twice_is_encoded_once(encoder, image_paths, image_names, tmp_path):
    counting = CountingEncoder(encoder)
    twice = [*image_names[:9], *image_names[:9]]
    maps = extract_feature_maps(counting, tmp_path, twice, tmp_path / "maps.bin")
    assert list(maps) == image_names[:9]
    assert counting.encoded == 9


def test_an_interrupted_extraction_resumes(encoder, image_paths, image_names, tmp_path):
    path = tmp_path / "maps.bin"
    with pytest.raises(KeyboardInterrupt):
        extract_feature_maps(CountingEncoder(encoder, stop_after=16), tmp_path, image_names, path)
    assert len(FeatureStore(path)) == 16
    counting = CountingEncoder(encoder)
    stopped = extract_feature_maps(counting, tmp_path, image_names, path)
    assert counting.encoded == 1 + 5
    whole = extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "whole.bin")
    assert stopped.keys() == whole.keys()
    for name in whole:
        np.testing.assert_allclose(stopped[name], whole[name], atol=1e-3)


def test_an_extraction_interrupted_while_writing_keeps_the_written_maps(
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


def test_the_next_images_are_encoded_while_maps_are_written(
    encoder, image_names, tmp_path, monkeypatch
):
    append, encoded_more, waited = FeatureStore.append, Event(), []

    class SignallingEncoder(CountingEncoder):
        def __call__(self, images):
            if self.encoded:
                encoded_more.set()
            return super().__call__(images)

    def append_when_more_is_encoded(maps, image_name, feature_map):
        waited.append(encoded_more.wait(timeout=20))
        append(maps, image_name, feature_map)

    monkeypatch.setattr(FeatureStore, "append", append_when_more_is_encoded)
    maps = extract_feature_maps(
        SignallingEncoder(encoder), tmp_path, image_names, tmp_path / "maps.bin"
    )
    assert waited == [True] * len(image_names)
    assert list(maps) == image_names


def test_features_of_another_encoder_are_refused(encoder, image_paths, image_names, tmp_path):
    store_map(
        tmp_path / "maps.bin",
        image_paths[0].name,
        np.linspace(-1, 1, 72, dtype="float32").reshape(4, 18),
    )
    with pytest.raises(ValueError, match="Expected features of this encoder .* got others for 00"):
        extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "maps.bin")


def test_features_of_another_width_are_refused(encoder, image_paths, image_names, tmp_path):
    store_map(tmp_path / "maps.bin", image_paths[0].name, np.ones((4, 2048), "float32"))
    with pytest.raises(ValueError, match="Expected features of this encoder"):
        extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "maps.bin")


def test_features_of_an_encoder_with_another_id_are_refused(
    encoder, image_paths, image_names, tmp_path
):
    path = tmp_path / "maps.bin"
    extract_feature_maps(encoder, tmp_path, image_names[:2], path)
    assert FeatureStore(path).encoder_id == encoder.encoder_id
    renamed = CountingEncoder(encoder)
    renamed.encoder_id = "Other 0123456789abcdef"
    with pytest.raises(ValueError, match="Other 0123456789abcdef"):
        extract_feature_maps(renamed, tmp_path, image_names, path)
    assert renamed.encoded == 0


def test_features_of_the_encoder_before_quantisation_are_refused(
    encoder, image_paths, image_names, tmp_path
):
    path = tmp_path / "maps.bin"
    extract_feature_maps(encoder, tmp_path, image_names[:2], path)
    quantised = CountingEncoder(encoder)
    quantised.encoder_id = f"{encoder.encoder_id} int8"
    with pytest.raises(ValueError, match="encoder [0-9a-f]{16} int8"):
        extract_feature_maps(quantised, tmp_path, image_names, path)


def test_features_with_a_cosine_of_nine_tenths_are_refused(
    encoder, image_paths, image_names, tmp_path
):
    ((_, feature_map),) = next(encode_images(encoder, image_paths[:1]))
    noise = np.random.default_rng(0).normal(size=feature_map.shape)
    noise -= (noise * feature_map).sum() / (feature_map**2).sum() * feature_map  # at a right angle
    noise *= 0.48 * np.linalg.norm(feature_map) / np.linalg.norm(noise)  # a cosine of 0.9
    store_map(tmp_path / "maps.bin", image_names[0], feature_map + noise)
    with pytest.raises(ValueError, match="got others for 00"):
        extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "maps.bin")


def test_an_extraction_without_an_encoder_id_resumes(encoder, image_paths, image_names, tmp_path):
    path = tmp_path / "maps.bin"
    extract_feature_maps(encoder, tmp_path, image_names[:2], path)
    index = json.loads((tmp_path / "maps.bin.json").read_text())
    del index["encoder"]
    (tmp_path / "maps.bin.json").write_text(json.dumps(index))
    maps = extract_feature_maps(encoder, tmp_path, image_names[:3], path)
    assert (len(maps), maps.encoder_id) == (3, None)


def test_an_unreadable_image_is_left_out_and_reported(
    encoder, image_paths, image_names, tmp_path, capsys
):
    image_paths[3].write_text("no image")
    maps = extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "maps.bin")
    assert len(maps) == 20
    assert "left out" in capsys.readouterr().out


def test_a_missing_folder_is_reported_once_and_not_for_each_image(encoder, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder .*gone with the images"):
        extract_feature_maps(encoder, tmp_path / "gone", ["a.png", "b.png"], tmp_path / "maps.bin")
    assert not (tmp_path / "maps.bin").exists()


def test_an_image_in_a_subfolder_is_named_by_its_path(encoder, tmp_path):
    for name, colour in (("white/a.png", "white"), ("red/a.png", "red")):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (40, 40), colour).save(tmp_path / name)
    names = ["red/a.png", "white/a.png"]
    maps = extract_feature_maps(encoder, tmp_path, names, tmp_path / "maps.bin")
    assert list(maps) == names
    assert maps["white/a.png"].max() == pytest.approx(0, abs=0.01)
    assert maps["red/a.png"].max() > 1


def test_pooled_features_of_other_maps_are_computed_again(
    encoder, image_paths, image_names, tmp_path
):
    paths = Paths(tmp_path)
    pool_features({image_names[0]: np.ones((4, 18), "float16")}, paths)
    maps = extract_feature_maps(encoder, tmp_path, image_names[:3], tmp_path / "maps.bin")
    features = pool_features(maps, paths)
    np.testing.assert_array_equal(
        features[image_names[0]], maps[image_names[0]].mean(0, dtype="float32")
    )
    assert list(features) == image_names[:3]


def test_an_image_in_memory_may_be_repeated(encoder, image_paths):
    with Image.open(image_paths[0]) as image:
        maps = [
            feature_map
            for batch in encode_images(encoder, [image] * 40)
            for _, feature_map in batch
        ]
    assert len(maps) == 40
    for feature_map in maps:
        np.testing.assert_allclose(feature_map, maps[0], atol=1e-4)


def test_features_pooled_from_photographs_equal_the_means_of_their_maps(
    encoder, image_names, tmp_path
):
    maps = extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "maps.bin")
    from_maps = pool_features(maps, Paths(tmp_path / "from maps"))
    features = extract_pooled_features(encoder, tmp_path, image_names, Paths(tmp_path))
    stored = pickle.loads((tmp_path / "features.p").read_bytes())
    assert list(stored) == list(features) == list(from_maps) == image_names
    for name, array in stored.items():
        assert (array.dtype, array.shape) == (np.float32, (18,))
        np.testing.assert_array_equal(array, features[name])
        np.testing.assert_allclose(array, from_maps[name], rtol=1e-3, atol=1e-3)  # float16 on disk


def test_pooling_from_photographs_writes_no_feature_maps(encoder, image_names, tmp_path):
    folder = tmp_path / "features"
    extract_pooled_features(encoder, tmp_path, image_names, Paths(folder))
    assert [path.name for path in folder.iterdir()] == ["features.p"]


def test_an_interrupted_pooling_resumes(encoder, image_names, tmp_path):
    path = tmp_path / "features.p"
    with pytest.raises(KeyboardInterrupt):
        extract_pooled_features(
            CountingEncoder(encoder, 16), tmp_path, image_names, Paths(tmp_path)
        )
    assert list(pickle.loads(path.read_bytes())) == image_names[:16]
    counting = CountingEncoder(encoder)
    features = extract_pooled_features(counting, tmp_path, image_names, Paths(tmp_path))
    assert counting.encoded == 1 + 5  # one to compare the encoders
    assert list(features) == list(pickle.loads(path.read_bytes())) == image_names


def test_pooling_saves_every_few_hundred_images(encoder, image_names, tmp_path, monkeypatch):
    monkeypatch.setattr("captioning.inference.extract_features._SAVE_EVERY", 8)
    saved = []

    def save(path, features):
        saved.append(len(features))

    monkeypatch.setattr("captioning.inference.extract_features.save_pickle", save)
    extract_pooled_features(encoder, tmp_path, image_names, Paths(tmp_path))
    assert saved == [8, 16, 21]


def test_pooled_features_of_another_encoder_are_refused(encoder, image_names, tmp_path):
    path = tmp_path / "features.p"
    extract_pooled_features(encoder, tmp_path, image_names[:1], Paths(tmp_path))
    others = np.linspace(-1, 1, 18), np.zeros(18), np.ones(2048)
    for vector in (vector.astype("float32") for vector in others):
        path.write_bytes(pickle.dumps({image_names[0]: vector}))
        with pytest.raises(
            ValueError, match="Expected features of this encoder .* in .*features.p"
        ):
            extract_pooled_features(encoder, tmp_path, image_names, Paths(tmp_path))


def test_pooling_leaves_out_and_reports_an_unreadable_image(encoder, image_paths, tmp_path, capsys):
    image_paths[3].write_text("no image")
    names = [path.name for path in image_paths]
    features = extract_pooled_features(encoder, tmp_path, names, Paths(tmp_path))
    assert list(features) == names[:3] + names[4:]
    assert "left out: " in capsys.readouterr().out


def test_pooled_features_of_very_many_images_are_maps_of_one_cell(
    encoder, image_names, tmp_path, monkeypatch
):
    monkeypatch.setattr("captioning.inference.extract_features._MAX_PICKLED", 20)
    maps = extract_feature_maps(encoder, tmp_path, image_names, tmp_path / "maps.bin")
    from_maps = pool_features(maps, Paths(tmp_path / "from maps"))
    with pytest.raises(KeyboardInterrupt):
        interrupted = CountingEncoder(encoder, 16)
        extract_pooled_features(interrupted, tmp_path, image_names, Paths(tmp_path / "direct"))
    direct = extract_pooled_features(encoder, tmp_path, image_names, Paths(tmp_path / "direct"))
    assert list(direct) == list(from_maps) == image_names
    assert direct.encoder_id == from_maps.encoder_id == encoder.encoder_id
    for name in image_names:
        assert (direct[name].dtype, direct[name].shape) == (np.float16, (1, 18))
        expected = maps[name].mean(axis=0, keepdims=True, dtype="float32")
        np.testing.assert_allclose(from_maps[name], expected, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(direct[name], expected, rtol=1e-3, atol=2e-3)
    assert not (tmp_path / "direct" / "features.p").exists()


def test_a_root_with_pooled_maps_keeps_them_when_its_data_set_shrinks(
    encoder, image_names, tmp_path, monkeypatch
):
    """`load_pooled_features` reads the maps, so `features.p` beside them would never be read."""
    monkeypatch.setattr("captioning.inference.extract_features._MAX_PICKLED", 3)
    extract_pooled_features(encoder, tmp_path, image_names[:4], Paths(tmp_path))
    extract_pooled_features(encoder, tmp_path, image_names[5:7], Paths(tmp_path))
    maps = extract_feature_maps(encoder, tmp_path, image_names[8:9], tmp_path / "maps.bin")
    pool_features(maps, Paths(tmp_path))
    stored = list(load_pooled_features(Paths(tmp_path)))
    assert stored == [*image_names[:4], *image_names[5:7], *image_names[8:9]]
    assert not (tmp_path / "features.p").exists()
