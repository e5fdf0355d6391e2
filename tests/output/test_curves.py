import re
from xml.etree import ElementTree

import pytest

from captioning.output.curves import draw_curves


def lines_of(svg):
    """The points of each line, (x, y), as drawn."""
    return [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in ElementTree.fromstring(svg).iter("polyline")
    ]


def texts_of(svg):
    return [text.text for text in ElementTree.fromstring(svg).iter("text")]


def test_a_line_rises_with_its_numbers_and_goes_from_left_to_right():
    (points,) = lines_of(draw_curves("a", {"CIDEr": [1.0, 3.0, 2.0]}))
    (left, low), (_, high), (right, between) = points
    assert left < right
    assert high < between < low  # y counts downwards


def test_two_lines_share_their_scale():
    first, second = lines_of(draw_curves("a", {"training": [2.0, 1.0], "development": [1.0, 2.0]}))
    assert [y for _, y in first] == [y for _, y in reversed(second)]


def test_epochs_marks_and_names_are_written():
    texts = texts_of(draw_curves("a", {"reward": [1.0, 1.5]}, first_epoch=13, marks={14: "kept"}))
    assert {"13", "14", "epoch", "kept", "reward"} <= set(texts)


@pytest.mark.parametrize("numbers", [[0.5], [0.0, 0.0], [3.0, 3.0, 3.0], [1e-9, 2e9], [-1.0, 1.0]])
def test_any_numbers_lie_within_the_drawing(numbers):
    svg = draw_curves("a", {"CIDEr": numbers})
    _, _, width, height = map(float, re.search('viewBox="([^"]*)"', svg)[1].split())
    for x, y in lines_of(svg)[0]:
        assert 0 <= x <= width and 0 <= y <= height


def test_the_scale_has_round_numbers_around_the_lines():
    texts = texts_of(draw_curves("a", {"loss": [4.99, 3.0]}))
    assert texts[:5] == ["3", "3.5", "4", "4.5", "5"]


def test_a_hundred_epochs_are_not_all_numbered():
    assert len(texts_of(draw_curves("a", {"loss": [float(n) for n in range(100)]}))) < 20


def test_names_of_lines_that_end_together_do_not_cover_each_other():
    svg = draw_curves("a", {"training": [2.0, 1.0], "development": [3.0, 1.0]})
    one, other = (
        float(text.get("y"))
        for text in ElementTree.fromstring(svg).iter("text")
        if text.text in ("training", "development")
    )
    assert abs(one - other) >= 14


def test_who_hears_the_page_is_told_what_the_drawing_is():
    drawing = ElementTree.fromstring(draw_curves('Loss & "more"', {"loss": [1.0]}))
    assert (drawing.get("role"), drawing.get("aria-label")) == ("img", 'Loss & "more"')
