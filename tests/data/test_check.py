import os
import zipfile

import pytest
from PIL import Image

from captioning.data.check import check_dataset, keep_usable
from captioning.data.dataset import Dataset
from captioning.data.read_dataset import read_dataset
from captioning.errors import UserError

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
    (tmp_path / "README.md").write_text("no image")
    (tmp_path / "text.png").write_text("no image")
    return tmp_path


def test_the_check_lists_every_fault(images):
    names = check_dataset(Dataset(images, CAPTIONS, SPLITS)).names
    assert names["captioned images that do not exist"] == ["gone.jpg"]
    assert names["images without a caption"] == ["silent.jpg", "text.png"]
    cut, text = names["unreadable images"]
    assert cut.startswith("cut.jpg cannot be read as an image (") and "truncated" in cut
    assert text == "text.png cannot be read as an image (no known format)"
    assert names["captions of no or one word"] == ["odd.jpg#0", "odd.jpg#1", "odd.jpg#2"]
    assert names['captions that read "broken image"'] == ["odd.jpg#3"]
    assert names["captions of more than 30 words"] == ["odd.jpg#5"]
    assert names["images in more than one split"] == ["whole.jpg"]
    assert names["images of a split that do not exist"] == ["gone.jpg", "nobody.jpg"]
    assert names["images of a split without a caption"] == ["nobody.jpg"]
    assert names["images in no split"] == ["silent.jpg", "text.png"]


def test_only_unusable_captions_and_images_are_left_out(images):
    dataset = Dataset(images, CAPTIONS, SPLITS)
    assert keep_usable(dataset, check_dataset(dataset)) == Dataset(
        images,
        captions={
            "whole.jpg": ["A dog runs .", "A dog is running ."],
            "odd.jpg": ["A good caption .", "dog " * 31],
        },
        splits={"train": ["odd.jpg"], "test": ["whole.jpg"]},
    )


def test_an_image_in_several_splits_is_kept_in_one(images):
    everywhere = {split: ["whole.jpg", "odd.jpg"] for split in ("train", "development", "test")}
    everywhere["development"] = ["odd.jpg"]
    everywhere["test"] = ["whole.jpg"]
    dataset = Dataset(images, CAPTIONS, everywhere)
    with pytest.raises(ValueError, match="usable caption in the train split, got none"):
        keep_usable(dataset, check_dataset(dataset))
    dataset = Dataset(images, {**CAPTIONS, "silent.jpg": ["Two cats sit ."]}, everywhere)
    everywhere["train"] += ["silent.jpg"]
    assert keep_usable(dataset, check_dataset(dataset)).splits == {
        "train": ["silent.jpg"],
        "development": ["odd.jpg"],
        "test": ["whole.jpg"],
    }


def test_a_split_without_usable_images_is_an_error(images):
    dataset = Dataset(images, CAPTIONS, {**SPLITS, "development": ["cut.jpg", "gone.jpg"]})
    with pytest.raises(
        ValueError, match="usable caption in the development split, got none in .*gone"
    ):
        keep_usable(dataset, check_dataset(dataset))


def test_images_in_subfolders_are_found(images):
    (images / "below").mkdir()
    (images / "whole.jpg").rename(images / "below" / "whole.jpg")
    dataset = Dataset(images, {"below/whole.jpg": ["A dog runs ."]}, {})
    names = check_dataset(dataset).names
    assert names["captioned images that do not exist"] == []
    assert "below/whole.jpg" in names["images in no split"]


def test_the_findings_print_a_line_for_each_kind_with_count_and_names(images):
    lines = str(check_dataset(Dataset(images, CAPTIONS, SPLITS))).splitlines()
    assert len(lines) == 10
    assert lines[0] == "     1  captioned images that do not exist: gone.jpg"


def test_the_findings_print_control_characters_escaped(images):
    findings = check_dataset(Dataset(images, {"a\x1b[31m\n.jpg": ["A dog runs ."]}, {}))
    assert str(findings).splitlines()[0].endswith(r"do not exist: a\x1b[31m\n.jpg")


def test_a_missing_image_is_listed_with_the_image_that_differs_in_its_ending(images):
    (images / "silent.jpg").rename(images / "Silent.png")
    dataset = Dataset(images, {"silent.jpg": ["A dog runs ."], "gone.jpg": ["A cat ."]}, {})
    assert check_dataset(dataset).names["captioned images that do not exist"] == [
        "silent.jpg (there is Silent.png)",
        "gone.jpg",
    ]


def test_the_check_lists_links_and_pipes_and_continues(images):
    (images / "link.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(images / "pipe.jpg")
    (images / "raw.nef").write_bytes(b"raw")
    names = check_dataset(Dataset(images, CAPTIONS, SPLITS)).names["unreadable images"]
    assert names[1:4] == [
        "link.jpg is a link to a missing file",
        "pipe.jpg is a pipe, a socket or a device, not a file",
        "raw.nef cannot be read as an image (no known format)",
    ]


def test_a_clean_data_set_has_no_findings(tmp_path):
    Image.effect_noise((64, 64), 90).save(tmp_path / "whole.jpg")
    splits = {"train": ["whole.jpg", "whole.jpg"]}  # named twice, but in one split only
    findings = check_dataset(Dataset(tmp_path, {"whole.jpg": ["A dog runs ."]}, splits))
    assert not any(findings.names.values())
    assert findings.unusable_images == findings.unusable_captions == set()


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no image in"):
        check_dataset(Dataset(tmp_path, CAPTIONS, SPLITS))


CHINESE = ["一只棕色的狗在草地上奔跑。", "两个孩子在沙滩上玩耍。", "一个人骑着自行车。"]


def test_captions_without_spaces_between_words_are_refused(images):
    captions = {"whole.jpg": CHINESE[:2], "odd.jpg": [CHINESE[2], "A dog ."]}
    message = f"spaces between the words, got '{CHINESE[0]}' and others, 3 of 4.*Separate the words"
    with pytest.raises(UserError, match=message):
        check_dataset(Dataset(images, captions, SPLITS))


def test_captions_with_spaces_between_words_are_accepted_in_any_language(images):
    spaced = [
        "一只 棕色 的 狗 在 草地 上 奔跑 。",
        "สุนัข สี น้ำตาล วิ่ง บน หญ้า",
        "少年 が スケートボード に 乗る",
    ]
    captions = {"whole.jpg": spaced, "odd.jpg": [CHINESE[0], "Two dogs run ."]}
    findings = check_dataset(Dataset(images, captions, SPLITS))
    assert findings.unusable_captions == {"odd.jpg#0"}  # the one word


@pytest.mark.slow
@pytest.mark.real
def test_the_flaws_of_flickr8k_are_found(shared, tmp_path):
    with zipfile.ZipFile(shared / "flickr8k" / "Flickr8k_text.zip") as archive:
        archive.extractall(tmp_path)
    with zipfile.ZipFile(shared / "flickr8k" / "Flickr8k_Dataset.zip") as archive:
        archive.extractall(tmp_path)
    names = check_dataset(read_dataset([tmp_path], tmp_path / "Flicker8k_Dataset")).names
    assert names["captioned images that do not exist"] == ["2258277193_586949ec62.jpg.1"]
    assert names["images without a caption"] == []
    assert names["images in more than one split"] == []
    assert names["images of a split that do not exist"] == []
    assert len(names["images in no split"]) == 91
    assert len(names['captions that read "broken image"']) == 1
    assert names["unreadable images"] == []
    assert len(names["captions of more than 30 words"]) == 11
    assert all(name.count("#") == 1 for name in names["captions of no or one word"])


def test_of_several_similar_images_the_check_names_the_same_in_every_run(tmp_path):
    for name in ("q.png", "q.gif", "q.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    names = check_dataset(Dataset(tmp_path, {"x/q.bmp": ["A dog runs ."]}, {})).names
    assert names["captioned images that do not exist"] == ["x/q.bmp (there is q.png)"]
