import numpy as np
import pytest
from PIL import Image

from captioning.inference.attention import AttentionMaps
from captioning.output.attention_figure import (
    draw_attention_figure,
    refuse_to_overwrite,
    write_attention_figure,
)
from captioning.output.lettering import break_lines, find_font

HEADER = 807  # the height of the photograph of 400 x 300 with its margins


def gaze(words, cell=0, method="attention", cells=4):
    return AttentionMaps(
        tuple(words), np.tile(np.eye(cells, dtype="float32")[cell], (len(words), 1)), method
    )


def hottest(page):
    """Row and column of the middle of what is red below the key, of a drawing that is grey."""
    pixels = np.asarray(page).astype(int)[HEADER:]
    return np.argwhere(pixels[:, :, 0] - pixels[:, :, 2] > 90).mean(axis=0)


def test_the_heat_lies_on_the_part_of_the_image_that_was_looked_at():
    photograph = Image.new("RGB", (400, 300), "grey")
    upper_left, upper_right, lower_left, lower_right = (
        hottest(draw_attention_figure(photograph, gaze(["dog"], cell))) for cell in range(4)
    )
    assert upper_left[0] == upper_right[0] < lower_left[0] == lower_right[0]
    assert upper_left[1] == lower_left[1] < upper_right[1] == lower_right[1]


@pytest.mark.parametrize("method", ["attention", "occlusion"])
@pytest.mark.parametrize("words", [0, 1, 11, 37])
@pytest.mark.parametrize("size", [(400, 300), (300, 400), (2000, 20), (1, 1)])
def test_captions_and_photographs_of_any_size_make_a_page(words, size, method):
    page = draw_attention_figure(
        Image.new("RGB", size), gaze(["snowboarding"] * words, method=method)
    )
    assert (page.mode, page.width) == ("RGB", 2000)
    edge = np.concatenate([np.asarray(page)[:, -40:].ravel(), np.asarray(page)[-30:].ravel()])
    assert (edge == 255).all()


def test_a_picture_carries_its_caption_and_its_resolution(tmp_path):
    for name, form in (("a.png", "PNG"), ("a.jpg", "JPEG")):
        write_attention_figure(tmp_path / name, Image.new("RGB", (40, 30)), gaze(["a", "dog"]))
        with Image.open(tmp_path / name) as picture:
            assert picture.format == form
            assert picture.getexif()[0x010E] == "a dog"
            assert [round(each) for each in picture.info["dpi"]] == [300, 300]
        refuse_to_overwrite(tmp_path / name)  # not this one: it may give way


def test_the_caption_in_a_picture_keeps_its_letters(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "captioning.output.attention_figure.find_font", lambda text, size: find_font("a", size)
    )
    write_attention_figure(tmp_path / "a.png", Image.new("RGB", (40, 30)), gaze(["straße"]))
    assert "straße".encode() in (tmp_path / "a.png").read_bytes()


def test_other_files_do_not_give_way(tmp_path):
    refuse_to_overwrite(tmp_path / "gone.png")
    Image.new("RGB", (4, 3)).save(tmp_path / "photo.png")
    (tmp_path / "notes.png").write_text("no picture")
    for name in ("photo.png", "notes.png"):
        with pytest.raises(ValueError, match=f"{name} is another file, which is not overwritten"):
            refuse_to_overwrite(tmp_path / name)


def test_lines_fit_their_width_and_leave_no_word_alone():
    text, font = "a brown dog is playing with a stick in the sand", find_font("a", 20)
    lines = break_lines(text, font, round(font.getlength(text) - 1))
    assert lines == ["a brown dog is playing", "with a stick in the sand"]
    assert break_lines("", font, 100) == []
    assert break_lines("snowboarding", font, 5) == ["snowboarding"]


def test_a_caption_that_no_font_can_write_is_refused(monkeypatch):
    monkeypatch.setattr("captioning.output.lettering._OTHER_FONTS", ("no such font.ttf",))
    with pytest.raises(ValueError, match="no such font.ttf. Received: none of them"):
        find_font("犬", 20)
