import pytest

from captioning.data.image_names import match_image_names, similar_images


@pytest.mark.parametrize(
    ("name", "images", "match"),
    [
        ("a.jpg", ["a.jpg", "b.jpg"], "a.jpg"),
        ("./x/a.jpg", ["x/a.jpg", "y/a.jpg"], "x/a.jpg"),
        ("C:\\photos\\a.jpg", ["x/a.jpg"], "x/a.jpg"),  # the only file of that name
        ("a.jpg", ["x/a.jpg", "y/a.jpg"], "a.jpg"),  # two of them: it stays missing
        ("A.JPG", ["a.jpg", "b.jpg"], "a.jpg"),
        ("a.jpg", ["A.jpg", "a.JPG"], "a.jpg"),
        ("X/a.jpg", ["x/a.JPG", "y/a.JPG"], "x/a.JPG"),
        ("caf\u00e9.jpg", ["cafe\u0301.jpg"], "cafe\u0301.jpg"),
        ("CAF\u00c9.jpg", ["cafe\u0301.jpg"], "cafe\u0301.jpg"),
        ("a", ["a.jpg", "b.jpg"], "a.jpg"),
        ("x/a", ["x/a.jpg", "y/a.jpg"], "x/a.jpg"),
        ("a", ["a.jpg", "a.png"], "a"),
        ("1.5", ["1.5.jpg", "1.jpg"], "1.5.jpg"),
        ("a.png", ["a.jpg"], "a.png"),  # another image, as far as we can know
        ("a.jpg.1", ["a.jpg"], "a.jpg.1"),
    ],
)
def test_a_name_is_matched_as_long_as_it_is_unambiguous(name, images, match):
    assert match_image_names([name], images) == {name: match}


def test_a_name_is_not_matched_if_another_name_fits_as_well():
    assert match_image_names(["x/a.jpg", "y/a.jpg"], ["z/a.jpg"]) == {
        "x/a.jpg": "x/a.jpg",
        "y/a.jpg": "y/a.jpg",
    }
    assert match_image_names(["A.jpg", "a.jpg"], ["A.jpg"]) == {"A.jpg": "A.jpg", "a.jpg": "a.jpg"}


def test_two_spellings_of_one_path_are_one_image():
    names = ["x/a.jpg", "./x/a.jpg", "x\\a.jpg"]
    assert match_image_names(names, ["x/A.jpg"]) == dict.fromkeys(names, "x/A.jpg")


def test_an_image_is_similar_if_case_or_ending_differ():
    images = ["x/A.png", "b.jpg"]
    assert similar_images(["a.jpg", "c.jpg", "B"], images) == {"a.jpg": "x/A.png", "B": "b.jpg"}
