import numpy as np
import pytest
from PIL import Image

from captioning.data.augmentation import AUGMENTATIONS, Augmentation, make_augmentations
from captioning.data.images import load_image

SIZE = (40, 60)
FLIPPED, CROPPED, CROPPED_FLIPPED = AUGMENTATIONS


@pytest.fixture
def photograph(tmp_path):
    """Red grows from left to right, green from top to bottom, so a colour gives its place."""
    down, right = np.mgrid[0:200, 0:250]
    pixels = np.stack([right, down, 0 * right], axis=-1).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "photograph.png")
    return tmp_path / "photograph.png"


def borders(augmentation, path):
    """Left, right, top and bottom of the augmented image, in pixels of the photograph."""
    pixels = augmentation.load_image(path, SIZE).astype(int)
    assert pixels.shape == (*SIZE, 3)
    return pixels[20, 0, 0], pixels[20, -1, 0], pixels[0, 30, 1], pixels[-1, 30, 1]


def test_a_flip_swaps_left_and_right_in_image_and_caption(photograph):
    expected = load_image(photograph, SIZE)[:, ::-1]
    np.testing.assert_array_equal(FLIPPED.load_image(photograph, SIZE), expected)
    assert FLIPPED.caption("a dog on the left") == "a dog on the right"
    assert CROPPED_FLIPPED.caption("a dog on the left") == "a dog on the right"
    assert CROPPED.caption("a dog on the left") == "a dog on the left"


def test_a_crop_lies_within_the_photograph_and_has_its_proportions(photograph):
    left, right, top, bottom = borders(CROPPED, photograph)
    assert 0 <= left < right < 250 and 0 <= top < bottom < 200
    width, height = (right - left) / 250, (bottom - top) / 200
    assert 0.68 < width < 0.96
    assert width == pytest.approx(height, abs=0.03)


def test_a_flipped_crop_differs_from_the_crop_that_is_not_flipped(photograph):
    right, left, top, bottom = borders(CROPPED_FLIPPED, photograph)
    assert left < right and top < bottom
    assert (left, right, top, bottom) != borders(CROPPED, photograph)


def test_the_crop_depends_only_on_the_image_name(photograph):
    twin = photograph.rename(photograph.with_name("twin.png"))
    first = borders(CROPPED, twin)
    assert first == borders(Augmentation("cropped", crop=1), twin)
    assert first != borders(CROPPED, twin.rename(twin.with_name("photograph.png")))


def test_the_augmentations_have_distinct_names():
    assert [augmentation.name for augmentation in make_augmentations(crops=2)] == [
        "flipped",
        "cropped",
        "cropped_flipped",
        "cropped_2",
        "cropped_flipped_2",
    ]
    assert make_augmentations(crops=2)[:3] == AUGMENTATIONS


def test_crops_with_other_numbers_differ(photograph):
    _, *crops = make_augmentations(crops=3)
    assert len({borders(crop, photograph) for crop in crops}) == 6


def test_crops_still_fit_existing_feature_maps():
    assert CROPPED._box("dog.jpg") == pytest.approx(
        (0.020916, 0.011336, 0.968333, 0.958752), abs=1e-6
    )
    assert CROPPED_FLIPPED._box("dog.jpg") == pytest.approx(
        (0.224958, 0.001549, 0.969037, 0.745628), abs=1e-6
    )
