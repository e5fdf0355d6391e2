import json

import pytest

from captioning.data.caption_json import read_json
from captioning.data.caption_tables import find_delimiter, read_table
from captioning.data.flickr8k import CAPTION_FILE, read_captions
from captioning.data.read_dataset import read_caption_file
from captioning.files import read_text
from captioning.inference.decoding import Caption
from captioning.output.caption_formats import FORMATS


@pytest.fixture
def rows(tmp_path):
    def read(text, encoding="utf-8"):
        path = tmp_path / "my.csv"
        path.write_bytes(text.encode(encoding))
        return list(read_table(read_text(path, ""), path))

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


@pytest.mark.parametrize("before", ["sep=;\n", '"sep=;"\r\n', "\n", "\n \nsep=;\n\n"])
def test_empty_lines_and_the_delimiter_of_excel_may_precede_the_header(rows, before, tmp_path):
    text = f"{before}image;caption\na.jpg;One, two\n"
    assert rows(text) == [("a.jpg", "One, two", None)]
    assert read_caption_file(tmp_path / "my.csv") == ({"a.jpg": ["One, two"]}, {})
    line = text.count("\n") + 1
    with pytest.raises(ValueError, match=f"my.csv, line {line}: Expected 2 fields"):
        rows(f"{text}b.jpg\n")


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("image,caption,text", "caption, text"),
        ("image,caption,caption", "caption, caption"),
        ("caption 2,file_name,Caption", "caption 2, caption"),
        ("image,caption,captions_2", "caption, captions_2"),
    ],
)
def test_a_second_column_of_captions_is_refused(rows, header, columns):
    with pytest.raises(ValueError, match=f"line 1: Expected one column of captions, got {columns}"):
        rows(f"{header}\na,b,c\n")


def test_all_wrong_rows_are_named_at_once(rows):
    text = "image,caption,split\na.jpg,A dog .,train\nb.jpg\nc.jpg,A cat .,mine\n,A bird .,\n"
    with pytest.raises(ValueError) as caught:
        rows(text + 'd.jpg,"A horse .\n')
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0].rpartition(" ")[2] for line in lines] == ["3", "4", "5", "6"]


def test_at_most_twenty_wrong_rows_are_named(rows):
    with pytest.raises(ValueError) as caught:
        rows("image,caption\n" + "a.jpg\n" * 1021)
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert "my.csv, line 21: " in lines[19]
    assert lines[20] == "... and 1,001 more bad rows."


def test_wrong_lines_of_flickr8ks_captions_are_named_at_once(tmp_path):
    path = tmp_path / CAPTION_FILE
    path.write_text("a.jpg#0\tA dog .\nb.jpg A cat .\n\na.jpg#1\tIt .\nc.jpg#0 A bird .\n")
    with pytest.raises(ValueError, match="line 2: Expected .*\n.*line 5: Expected "):
        read_captions(path)


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
    with pytest.raises(ValueError, match=f"my.csv, {message}.*Correct "):
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
        return list(read_json(read_text(path, ""), path))

    return read


def test_cocos_captions_name_their_images_by_id(entries):
    assert entries(COCO) == [
        ("7.jpg", "A dog .", None),
        ("9.jpg", "A cat .", None),
        ("7.jpg", "A brown dog .", None),
    ]


@pytest.mark.parametrize(
    "ids", [lambda number: str(number), lambda number: number if number == 7 else str(number)]
)
def test_ids_may_be_numbers_or_text(entries, ids):
    images = [{**image, "id": str(image["id"])} for image in COCO["images"]]
    annotations = [{**entry, "image_id": ids(entry["image_id"])} for entry in COCO["annotations"]]
    assert entries({"images": images, "annotations": annotations}) == entries(COCO)


def test_karpathys_images_have_several_sentences_and_a_split(entries):
    captions = entries(KARPATHY)
    assert captions[:2] == [("1.jpg", "A dog .", "train"), ("1.jpg", "It .", "train")]
    assert [split for *_, split in captions[::2]] == ["train", "train", "development", "test"]


def test_karpathys_folder_is_part_of_the_image_name(entries):
    image = {**KARPATHY["images"][0], "filepath": "val2014"}
    assert entries({"images": [image]})[0][0] == "val2014/1.jpg"


def test_all_wrong_entries_are_named_at_once(entries):
    annotations = [*COCO["annotations"], {"image_id": 8, "caption": "A bird ."}, {"image_id": 7}]
    with pytest.raises(ValueError, match=r"annotations\[3\]: .*got 8.*\n.*annotations\[4\]: "):
        entries({**COCO, "annotations": annotations})


def test_json_lines_have_an_object_for_each_caption(entries):
    lines = [
        {"image": "a.jpg", "caption": "A dog .", "split": "val"},
        {"image": "a.jpg", "caption": "It is \u2028 a dog .", "split": None},
        {"image": "b/c.jpg", "caption": "A cat .", "log_prob": -3.5},
    ]
    assert entries("\n".join(map(json.dumps, lines)) + "\n") == [
        ("a.jpg", "A dog .", "development"),
        ("a.jpg", "It is \u2028 a dog .", None),
        ("b/c.jpg", "A cat .", None),
    ]
    assert entries(json.dumps(lines[0])) == [("a.jpg", "A dog .", "development")]
    for one in (
        '\n\n{"file_name": "a.jpg", "text": "A dog ."}\n\n',
        '{\n "file_name": "a.jpg",\n "text": "A dog ."\n}',
    ):
        assert entries(one) == [("a.jpg", "A dog .", None)]


def test_the_captions_that_the_program_wrote_are_read(tmp_path):
    captions = [Caption("a dog", -1.5, 0.5), Caption("a cat", -2.5)]
    for name, file_format in FORMATS.items():
        for is_ranked in (False, True) if name != "text" else ():
            written = captions if is_ranked else captions[:1]
            content = file_format.header + file_format.write("a.jpg", written, is_ranked)
            (tmp_path / name).write_text(content)
            best, *others = read_caption_file(tmp_path / name)[0]["a.jpg"]
            assert best == "a dog"
            assert others == (["a cat"] if is_ranked and name == "csv" else [])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", '{"file_name": "a.jpg", "text": "A dog ."}\n'),
        ("metadata.csv", "file_name,text\na.jpg,A dog .\n"),
    ],
)
def test_an_image_folder_of_hugging_face_has_its_captions_beside_the_images(
    tmp_path, name, content
):
    (tmp_path / name).write_text(content)
    assert read_caption_file(tmp_path) == ({"a.jpg": ["A dog ."]}, {})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "b.jpg", "text": "A cat ."}', 'Expected an entry with "caption"'),
        ('{"image": 7, "caption": "A cat ."}', 'Expected an entry with "image"'),
        ('{"image": "b.jpg", "caption": null}', 'Expected an entry with "caption"'),
        ('{"image": "b.jpg", "caption"', 'Expected an entry with "image", got None'),
        ('{"image": "b.jpg", "caption": "A", "split": "mine"}', "Expected a split, .* got 'mine'"),
    ],
)
def test_the_message_for_a_wrong_line_names_it(entries, line, message):
    first = '{"image": "a.jpg", "caption": "A dog ."}'
    with pytest.raises(ValueError, match=f"my.json, line 3: {message}.*\n.*line 4: Expected"):
        entries(f"{first}\n\n{line}\n7\n{first}\n")


def test_json_lines_with_two_captions_in_a_line_are_refused(entries):
    with pytest.raises(
        ValueError, match="line 1: Expected one column of captions, got caption, te"
    ):
        entries('{"image": "a.jpg", "caption": "A dog .", "text": "It ."}\n' * 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', "Expected whole JSON in .*my.json"),
        ("[" * 100_000, "Expected whole JSON in .*my.json"),
        ({"annotations": []}, 'Expected an entry with "images"'),
        ({**COCO, "images": [{"id": 9}]}, r'images\[0\]: Expected an entry with "file_name"'),
        (
            {**COCO, "annotations": [{"image_id": 9, "bbox": []}]},
            r'annotations\[0\]: Expected an entry with "cap',
        ),
        ({**COCO, "images": COCO["images"][:1]}, r"annotations\[0\]: Expected the id .*got 7"),
        ({"images": [{"filename": "1.jpg"}]}, r'images\[0\]: Expected an entry with "split"'),
        ({"images": [{**KARPATHY["images"][0], "split": "mine"}]}, r"images\[0\]: .*got 'mine'"),
        (
            {"images": [{**KARPATHY["images"][0], "sentences": [5]}]},
            r'images\[0\]: Expected an entry with "raw"',
        ),
    ],
)
def test_the_message_for_a_wrong_entry_names_it(entries, content, message):
    with pytest.raises(ValueError, match=message):
        entries(content)


@pytest.mark.parametrize(
    "content",
    [
        '{"image": "a.jpg", "caption": "A dog ."}\n{"image": " ", "caption": "A cat ."}',
        {"images": [{"id": 1, "file_name": ""}], "annotations": []},
        {"images": [{"filename": "", "split": "train", "sentences": []}]},
    ],
)
def test_an_empty_image_name_is_refused(entries, content):
    with pytest.raises(ValueError, match="(line 2|images.0.): Expected the name of an image"):
        entries(content)


def test_a_number_of_thousands_of_digits_is_no_json(entries):
    with pytest.raises(ValueError, match="Expected whole JSON in .*my.json"):
        entries('{"images": [' + "1" * 5000 + "]}")
