import json

import pytest

from captioning.data.json_formats import read_json

COCO = {
    "info": {},
    "images": [{"id": 9, "file_name": "9.jpg"}, {"id": 7, "file_name": "7.jpg"}],
    "annotations": [
        {"image_id": 7, "id": 1, "caption": "A dog ."},
        {"image_id": 9, "id": 2, "caption": "A cat ."},
        {"image_id": 7, "id": 3, "caption": "A brown dog ."},
    ],
}
KARPATHY = {
    "images": [
        {"filename": "1.jpg", "split": split, "sentences": [{"raw": "A dog ."}, {"raw": "It ."}]}
        for split in ("train", "restval", "val", "test")
    ],
    "dataset": "flickr8k",
}


@pytest.fixture
def entries(tmp_path):
    def read(content):
        path = tmp_path / "my.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return list(read_json(path))

    return read


def test_coco_names_the_images_of_its_captions_by_id(entries):
    assert entries(COCO) == [
        ("7.jpg", "A dog .", None),
        ("9.jpg", "A cat .", None),
        ("7.jpg", "A brown dog .", None),
    ]


def test_karpathy_gives_several_sentences_and_the_split_of_an_image(entries):
    captions = entries(KARPATHY)
    assert captions[:2] == [("1.jpg", "A dog .", "train"), ("1.jpg", "It .", "train")]
    assert [split for *_, split in captions[::2]] == ["train", "train", "development", "test"]


def test_karpathys_folder_belongs_to_the_name_of_the_image(entries):
    image = {**KARPATHY["images"][0], "filepath": "val2014"}
    assert entries({"images": [image]})[0][0] == "val2014/1.jpg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', "Expected whole JSON in .*my.json"),
        ("[" * 100_000, "Expected whole JSON in .*my.json"),
        ({"annotations": []}, 'Expected "images"'),
        ({**COCO, "images": [{"id": 9}]}, r'images\[0\]: Expected "file_name"'),
        (
            {**COCO, "annotations": [{"image_id": 9, "bbox": []}]},
            r'annotations\[0\]: Expected "cap',
        ),
        ({**COCO, "images": COCO["images"][:1]}, r"annotations\[0\]: Expected the id .*got 7"),
        ({"images": [{"filename": "1.jpg"}]}, r'images\[0\]: Expected "split"'),
        ({"images": [{**KARPATHY["images"][0], "split": "mine"}]}, r"images\[0\]: .*got 'mine'"),
        ({"images": [{**KARPATHY["images"][0], "sentences": [5]}]}, r'images\[0\]: Expected "raw"'),
    ],
)
def test_an_entry_that_does_not_fit_is_named(entries, content, message):
    with pytest.raises(ValueError, match=message):
        entries(content)
