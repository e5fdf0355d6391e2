import sys

import pytest

pa = pytest.importorskip("pyarrow", reason="needs pyarrow, of the extra parquet")
from pyarrow import parquet  # noqa: E402

from captioning.data.caption_parquet import read_parquet  # noqa: E402
from captioning.data.read_dataset import read_caption_file  # noqa: E402


@pytest.fixture
def write(tmp_path):
    def write(columns, **options):
        path = tmp_path / "captions.parquet"
        parquet.write_table(pa.table(columns), path, **options)
        return path

    return write


def test_columns_are_found_by_name_in_any_order_and_in_all_parts_of_the_file(write):
    columns = {
        "id": [7, 8, 9],
        "split": ["train", "VAL", None],
        "caption": ["A dog .", "A cat .", "Two ."],
        "file_name": ["a.jpg", "b/c.jpg", "d.jpg"],
    }
    assert list(read_parquet(write(columns, row_group_size=2))) == [
        ("a.jpg", "A dog .", "train"),
        ("b/c.jpg", "A cat .", "development"),
        ("d.jpg", "Two .", None),
    ]


def test_a_file_is_recognised_by_its_content(write, tmp_path):
    path = write({"image": ["a.jpg", "a.jpg"], "caption": ["A dog .", "It ."]})
    renamed = path.rename(tmp_path / "captions.csv")
    assert read_caption_file(renamed) == ({"a.jpg": ["A dog .", "It ."]}, {})


def test_text_may_be_stored_once_for_many_rows(write):
    image = pa.array(["a.jpg", "a.jpg"]).dictionary_encode()
    path = write({"image": image, "caption": pa.array(["A dog .", "It ."], pa.large_string())})
    assert list(read_parquet(path)) == [("a.jpg", "A dog .", None), ("a.jpg", "It .", None)]


def test_all_wrong_rows_are_named_at_once(write):
    path = write(
        {
            "image": ["a.jpg", None, "c.jpg", "d.jpg"],
            "caption": ["A dog .", "A cat .", None, "A bird ."],
            "split": ["train", "train", "train", "mine"],
        }
    )
    with pytest.raises(ValueError) as caught:
        list(read_parquet(path))
    first, second, third = str(caught.value).splitlines()
    assert "row 2: Expected an image and a caption, got None and 'A cat .'" in first
    assert "row 3: Expected an image and a caption, got 'c.jpg' and None" in second
    assert "row 4: Expected a split" in third


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": ["a.jpg"], "label": ["dog"]}, "Expected the columns image and caption .*label"),
        ({"image": [7], "caption": ["A dog ."]}, "Expected text in the column image .*int64"),
        (
            {"image": [{"bytes": b"", "path": "a.jpg"}], "caption": ["A dog ."]},
            "Expected text in the column image .*struct.*its path",
        ),
        ({"image": ["a"], "caption": ["A"], "text": ["B"]}, "Expected one column of captions"),
    ],
)
def test_other_columns_are_refused(write, columns, message):
    with pytest.raises(ValueError, match=message):
        list(read_parquet(write(columns)))


def test_a_damaged_file_is_refused(write):
    path = write({"image": ["a.jpg"], "caption": ["A dog ."]})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="Expected a whole Parquet file in .*captions.parquet"):
        list(read_parquet(path))


def test_without_pyarrow_the_error_names_it(write, monkeypatch):
    path = write({"image": ["a.jpg"], "caption": ["A dog ."]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        list(read_parquet(path))
    assert caught.value.name == "pyarrow"


def test_text_that_is_no_utf_8_is_a_damaged_file(write):
    image = pa.array([b"\xff.jpg"], pa.binary()).view(pa.string())
    with pytest.raises(ValueError, match="Expected a whole Parquet file in .*captions.parquet"):
        list(read_parquet(write({"image": image, "caption": ["A dog ."]})))


def test_bytes_that_changed_make_a_damaged_file(write):
    numbers = range(2000)
    path = write({"image": [f"{n}.jpg" for n in numbers], "caption": [f"dog {n}" for n in numbers]})
    content = bytearray(path.read_bytes())
    content[100 : len(content) // 2] = bytes(len(content) // 2 - 100)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="captions.parquet"):
        list(read_parquet(path))


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "captions.parquet"
    names = ["image", "image", "caption"]
    parquet.write_table(pa.Table.from_arrays([["a.jpg"], ["b.jpg"], ["A dog ."]], names), path)
    with pytest.raises(ValueError, match="Expected one column image in .*, got 2"):
        list(read_parquet(path))


def test_a_blank_image_name_is_refused(write):
    with pytest.raises(ValueError, match="row 1: Expected an image and a caption, got ' '"):
        list(read_parquet(write({"image": [" "], "caption": ["A dog ."]})))


def test_a_missing_file_is_not_called_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(read_parquet(tmp_path / "captions.parquet"))
