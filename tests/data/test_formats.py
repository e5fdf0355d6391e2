import json

import pytest

from captioning.data.formats import find_delimiter, read_json, read_table


@pytest.fixture
def rows(tmp_path):
    def read(text, encoding="utf-8"):
        path = tmp_path / "my.csv"
        path.write_bytes(text.encode(encoding))
        return list(read_table(path))

    return read


def test_a_quoted_caption_keeps_its_commas_and_quotation_marks(rows):
    assert rows('image,caption\na.jpg,A dog .\na.jpg,"A dog , ""Rex"" , runs ."\n') == [
        ("a.jpg", "A dog .", None),
        ("a.jpg", 'A dog , "Rex" , runs .', None),
    ]


def test_a_caption_in_the_last_column_keeps_unquoted_commas(rows):
    text = 'image,caption\na.jpg,A dog, a "good" one, runs\n'
    assert rows(text) == [("a.jpg", 'A dog, a "good" one, runs', None)]


def test_columns_are_found_by_name_in_any_order(rows):
    text = (
        "id,Split,caption,file_name\n7,train,A dog .,a.jpg\n8,VAL,A cat .,b/c.jpg\n9,,Two .,d.jpg\n"
    )
    assert rows(text) == [
        ("a.jpg", "A dog .", "train"),
        ("b/c.jpg", "A cat .", "development"),
        ("d.jpg", "Two .", None),
    ]


def test_a_byte_order_mark_windows_line_ends_and_empty_rows_are_ignored(rows):
    text = "image,caption\r\n\r\na.jpg,Un été .\r\n,\r\n"
    assert rows(text, "utf-8-sig") == [("a.jpg", "Un été .", None)]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_the_header_determines_the_delimiter(rows, delimiter):
    assert rows(f"image{delimiter}caption\na.jpg{delimiter}One, two\n") == [
        ("a.jpg", "One, two", None)
    ]


def test_flickr30k_is_read_despite_its_spaces_quotes_and_broken_row(rows):
    text = (
        "image_name| comment_number| comment\n"
        '1.jpg| 0|  A man says "Hi .\n'
        '1.jpg| 1| "Hi" , says a man | who waves .\n'
        "2199200615.jpg| 4   A dog runs across the grass .\n"
    )
    assert rows(text) == [
        ("1.jpg", 'A man says "Hi .', None),
        ("1.jpg", '"Hi" , says a man | who waves .', None),
        ("2199200615.jpg", "A dog runs across the grass .", None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,caption\na.jpg,A dog\nb.jpg A cat\n",
            "line 3: Expected 2 fields.*got 'b.jpg A cat'",
        ),
        ("image,caption\n,A dog\n", "line 2: Expected 2 fields.*got ',A dog'"),
        (
            "image,caption,split\na.jpg,A, dog,train\n",
            "line 2: Expected 3 fields.*got 'a.jpg,A,dog,train'",
        ),
        (
            "image,caption,split\na.jpg,A dog,mine\n",
            "line 2: Expected a split.*development.*got 'mine'",
        ),
        (
            'image,caption\na.jpg,A dog\nb.jpg,"Hi\nc.jpg,Oh\n',
            "line 3: Expected matching quotation marks",
        ),
        ('image,caption\nb.jpg,"Hi" he says\n', "line 2: Expected matching quotation marks"),
    ],
)
def test_the_message_for_a_wrong_row_names_its_line_and_gives_advice(rows, text, message):
    with pytest.raises(ValueError, match=f"my.csv, {message}.*Correct the line"):
        rows(text)


def test_a_header_names_an_image_column_and_a_caption_column():
    for line in ("", "a.jpg,A dog", "image,label", "caption", "image caption"):
        assert find_delimiter(line) is None


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


def test_cocos_captions_name_their_images_by_id(entries):
    assert entries(COCO) == [
        ("7.jpg", "A dog .", None),
        ("9.jpg", "A cat .", None),
        ("7.jpg", "A brown dog .", None),
    ]


def test_karpathys_images_have_several_sentences_and_a_split(entries):
    captions = entries(KARPATHY)
    assert captions[:2] == [("1.jpg", "A dog .", "train"), ("1.jpg", "It .", "train")]
    assert [split for *_, split in captions[::2]] == ["train", "train", "development", "test"]


def test_karpathys_folder_is_part_of_the_image_name(entries):
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
def test_the_message_for_a_wrong_entry_names_it(entries, content, message):
    with pytest.raises(ValueError, match=message):
        entries(content)
