import numpy as np
import pytest
from PIL import Image

from captioning.data.augmentation import AUGMENTATIONS, Augmentation
from captioning.data.images import load_image

SIZE = (40, 60)
HORIZONTAL_FLIP, NEARER, NEARER_MIRRORED = AUGMENTATIONS


@pytest.fixture
def photograph(tmp_path):
    """Red grows from left to right, green from top to bottom: a colour tells its place."""
    down, right = np.mgrid[0:200, 0:250]
    pixels = np.stack([right, down, 0 * right], axis=-1).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "photograph.png")
    return tmp_path / "photograph.png"


def seen(view, path):
    """Left, right, top and bottom of what the view sees, in pixels of the photograph."""
    pixels = view.load_image(path, SIZE).astype(int)
    assert pixels.shape == (*SIZE, 3)
    return pixels[20, 0, 0], pixels[20, -1, 0], pixels[0, 30, 1], pixels[-1, 30, 1]


def test_in_a_mirror_left_and_right_change_places(photograph):
    expected = load_image(photograph, SIZE)[:, ::-1]
    np.testing.assert_array_equal(HORIZONTAL_FLIP.load_image(photograph, SIZE), expected)
    assert HORIZONTAL_FLIP.caption("a dog on the left") == "a dog on the right"
    assert NEARER.caption("a dog on the left") == "a dog on the left"


def test_from_nearer_a_part_in_the_proportions_of_the_whole_is_seen(photograph):
    left, right, top, bottom = seen(NEARER, photograph)
    assert 0 <= left < right < 250 and 0 <= top < bottom < 200
    width, height = (right - left) / 250, (bottom - top) / 200
    assert 0.68 < width < 0.96
    assert width == pytest.approx(height, abs=0.03)


def test_from_nearer_in_a_mirror_another_part_is_seen(photograph):
    right, left, top, bottom = seen(NEARER_MIRRORED, photograph)
    assert left < right and top < bottom
    assert (left, right, top, bottom) != seen(NEARER, photograph)


def test_the_part_follows_from_the_name_of_the_image(photograph):
    twin = photograph.rename(photograph.with_name("twin.png"))
    first = seen(NEARER, twin)
    assert first == seen(Augmentation("nearer", nearer=True), twin)
    assert first != seen(NEARER, twin.rename(twin.with_name("photograph.png")))


def test_views_have_names_of_their_own():
    assert len({view.name for view in AUGMENTATIONS}) == len(AUGMENTATIONS)
