import pytest

from captioning.data.table_format import find_delimiter, read_table


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


def test_a_last_caption_keeps_commas_that_nobody_quoted(rows):
    text = 'image,caption\na.jpg,A dog, a "good" one, runs\n'
    assert rows(text) == [("a.jpg", 'A dog, a "good" one, runs', None)]


def test_columns_are_known_by_name_whatever_their_order_and_company(rows):
    text = (
        "id,Split,caption,file_name\n7,train,A dog .,a.jpg\n8,VAL,A cat .,b/c.jpg\n9,,Two .,d.jpg\n"
    )
    assert rows(text) == [
        ("a.jpg", "A dog .", "train"),
        ("b/c.jpg", "A cat .", "development"),
        ("d.jpg", "Two .", None),
    ]


def test_a_byte_order_mark_and_windows_line_ends_and_empty_rows_are_no_matter(rows):
    text = "image,caption\r\n\r\na.jpg,Un été .\r\n,\r\n"
    assert rows(text, "utf-8-sig") == [("a.jpg", "Un été .", None)]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_are_seen_in_the_header(rows, delimiter):
    assert rows(f"image{delimiter}caption\na.jpg{delimiter}One, two\n") == [
        ("a.jpg", "One, two", None)
    ]


def test_flickr30k_is_read_with_its_blanks_and_quotes_and_its_one_broken_row(rows):
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
def test_a_row_that_does_not_fit_is_named_with_what_to_do(rows, text, message):
    with pytest.raises(ValueError, match=f"my.csv, {message}.*Correct the line"):
        rows(text)


def test_what_names_no_image_or_no_caption_is_no_header():
    for line in ("", "a.jpg,A dog", "image,label", "caption", "image caption"):
        assert find_delimiter(line) is None
