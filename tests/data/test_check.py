import zipfile

import pytest
from PIL import Image

from captioning.data.check import check_dataset, usable
from captioning.data.dataset import Dataset
from captioning.data.formats import read_dataset

CAPTIONS = {
    "whole.jpg": ["A dog runs .", "A dog is running ."],
    "cut.jpg": ["Two dogs ."],
    "gone.jpg": ["Three dogs ."],
    "odd.jpg": ["dog", "", " . ", "Broken image .", "A good caption .", "dog " * 31],
}
SPLITS = {
    "train": ["whole.jpg", "odd.jpg"],
    "test": ["whole.jpg", "cut.jpg", "gone.jpg", "nobody.jpg"],
}


@pytest.fixture
def images(tmp_path):
    for name in ("whole.jpg", "cut.jpg", "odd.jpg", "silent.jpg"):
        Image.effect_noise((64, 64), 90).save(tmp_path / name)
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "README.md").write_text("no image, and none claimed")
    (tmp_path / "text.png").write_text("no image, though it says so")
    return tmp_path


def test_everything_that_is_wrong_is_named(images):
    found = check_dataset(Dataset(images, CAPTIONS, SPLITS)).found
    assert found["captioned images that do not exist"] == ["gone.jpg"]
    assert found["images without a caption"] == ["silent.jpg", "text.png"]
    cut, text = found["images that cannot be read whole"]
    assert cut.startswith("cut.jpg cannot be read as an image (") and "truncated" in cut
    assert text == "text.png cannot be read as an image (no known format)"
    assert found["captions of no or one word"] == ["odd.jpg#0", "odd.jpg#1", "odd.jpg#2"]
    assert found['captions that say "broken image"'] == ["odd.jpg#3"]
    assert found["captions of more than 30 words"] == ["odd.jpg#5"]
    assert found["images in more than one split"] == ["whole.jpg"]
    assert found["images of a split that do not exist"] == ["gone.jpg", "nobody.jpg"]
    assert found["images of a split without a caption"] == ["nobody.jpg"]
    assert found["images in no split"] == ["silent.jpg", "text.png"]


def test_what_cannot_be_used_is_left_out_and_nothing_else(images):
    dataset = Dataset(images, CAPTIONS, SPLITS)
    assert usable(dataset, check_dataset(dataset)) == Dataset(
        images,
        captions={
            "whole.jpg": ["A dog runs .", "A dog is running ."],
            "odd.jpg": ["A good caption .", "dog " * 31],
        },
        splits={"train": ["odd.jpg"], "test": ["whole.jpg"]},
    )


def test_an_image_in_several_splits_is_not_learnt_from_and_scored_on(images):
    everywhere = {split: ["whole.jpg", "odd.jpg"] for split in ("train", "development", "test")}
    everywhere["development"] = ["odd.jpg"]
    everywhere["test"] = ["whole.jpg"]
    dataset = Dataset(images, CAPTIONS, everywhere)
    with pytest.raises(ValueError, match="The train split holds no usable image"):
        usable(dataset, check_dataset(dataset))
    dataset = Dataset(images, {**CAPTIONS, "silent.jpg": ["Two cats sit ."]}, everywhere)
    everywhere["train"] += ["silent.jpg"]
    assert usable(dataset, check_dataset(dataset)).splits == {
        "train": ["silent.jpg"],
        "development": ["odd.jpg"],
        "test": ["whole.jpg"],
    }


def test_a_split_of_which_nothing_is_left_is_an_error(images):
    dataset = Dataset(images, CAPTIONS, {**SPLITS, "development": ["cut.jpg", "gone.jpg"]})
    with pytest.raises(ValueError, match="The development split holds no usable image .*gone"):
        usable(dataset, check_dataset(dataset))


def test_images_are_found_in_folders_below(images):
    (images / "below").mkdir()
    (images / "whole.jpg").rename(images / "below" / "whole.jpg")
    dataset = Dataset(images, {"below/whole.jpg": ["A dog runs ."]}, {})
    found = check_dataset(dataset).found
    assert found["captioned images that do not exist"] == []
    assert "below/whole.jpg" in found["images in no split"]


def test_the_findings_print_a_line_a_kind_with_counts_and_names(images):
    lines = str(check_dataset(Dataset(images, CAPTIONS, SPLITS))).splitlines()
    assert len(lines) == 10
    assert lines[0] == "     1  captioned images that do not exist: gone.jpg"


def test_a_clean_data_set_has_no_findings(tmp_path):
    Image.effect_noise((64, 64), 90).save(tmp_path / "whole.jpg")
    splits = {"train": ["whole.jpg", "whole.jpg"]}  # named twice, but in one split only
    findings = check_dataset(Dataset(tmp_path, {"whole.jpg": ["A dog runs ."]}, splits))
    assert not any(findings.found.values())
    assert findings.unusable_images == findings.unusable_captions == set()


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no image in"):
        check_dataset(Dataset(tmp_path, CAPTIONS, SPLITS))


@pytest.mark.real
def test_the_flaws_of_flickr8k_are_found(shared, tmp_path):
    with zipfile.ZipFile(shared / "flickr8k" / "Flickr8k_text.zip") as archive:
        archive.extractall(tmp_path)
    with zipfile.ZipFile(shared / "flickr8k" / "Flickr8k_Dataset.zip") as archive:
        archive.extractall(tmp_path)
    found = check_dataset(read_dataset([tmp_path], tmp_path / "Flicker8k_Dataset")).found
    assert found["captioned images that do not exist"] == ["2258277193_586949ec62.jpg.1"]
    assert found["images without a caption"] == []
    assert found["images in more than one split"] == []
    assert found["images of a split that do not exist"] == []
    assert len(found["images in no split"]) == 91
    assert len(found['captions that say "broken image"']) == 1
    assert found["images that cannot be read whole"] == []
    assert len(found["captions of more than 30 words"]) == 11
    assert all(name.count("#") == 1 for name in found["captions of no or one word"])
