import os
from pathlib import Path

import pytest

from captioning.errors import one_line, printable


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("photos/犬.jpg", "photos/犬.jpg"),
        ("two\nlines\rand \udcff.jpg", r"two\nlines\rand \udcff.jpg"),
        ("red\x1b[31m \x9b1A.jpg", r"red\x1b[31m \x9b1A.jpg"),  # escape sequences of terminals
        ("a\tb\x85c\u2028d\u2029e.jpg", r"a\tb\x85c\u2028d\u2029e.jpg"),
        ("no-break\xa0space, half\u202fspace, joiner\u200d.jpg",) * 2,
        (r"a\back\slash.jpg", r"a\back\slash.jpg"),
    ],
)
def test_a_printable_name_is_one_line_without_control_characters(name, printed):
    assert printable(name) == printable(printed) == printed
    assert printable(Path(name)) == printed.replace("/", os.sep)
    printed.encode("utf-8")


def test_the_error_of_another_library_becomes_one_short_line():
    assert one_line(ValueError("two\n  lines\x1b[31m")) == "two lines [31m"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line(ValueError("a" * 1000))) == 200
