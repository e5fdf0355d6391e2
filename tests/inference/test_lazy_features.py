from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from captioning.data.augmentation import MANY_AUGMENTATIONS
from captioning.data.images import UnreadableImage
from captioning.inference.extract_features import extract_feature_maps
from captioning.inference.lazy_features import LazyFeatures

NAMES = [f"{number}.png" for number in range(6)]


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for name in NAMES:
        Image.fromarray(random.integers(0, 256, (50, 60, 3), dtype="uint8")).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("augmentation", MANY_AUGMENTATIONS[:3])
def test_lazy_features_are_those_that_an_extraction_stores(encoder, folder, augmentation):
    load = augmentation.load_image
    stored = extract_feature_maps(encoder, folder, NAMES, folder / "maps.bin", load)
    lazy = LazyFeatures(encoder, folder, NAMES, load)
    assert list(lazy) == NAMES and len(lazy) == 6
    with ThreadPoolExecutor(2) as threads:
        for name, feature_map in zip(NAMES, threads.map(lazy.get, NAMES), strict=True):
            assert feature_map.dtype == stored[name].dtype
            np.testing.assert_allclose(feature_map, stored[name], rtol=1e-2, atol=1e-3)


def test_an_image_is_read_only_when_its_features_are(encoder, folder):
    lazy = LazyFeatures(encoder, folder, [*NAMES, "later.png", "broken.png"])
    assert "later.png" in lazy and "other.png" not in lazy
    with pytest.raises(KeyError, match="other.png"):
        lazy["other.png"]
    with pytest.raises(FileNotFoundError, match="later.png"):
        lazy["later.png"]
    (folder / "later.png").write_bytes((folder / "0.png").read_bytes())
    np.testing.assert_array_equal(lazy["later.png"], lazy["0.png"])
    (folder / "broken.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match="broken.png"):
        lazy["broken.png"]
