from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from captioning.inference.attention import AttentionMaps
from captioning.output.attention_figure import (
    draw_attention_figure,
    draw_overlays,
    explain_scale,
    find_fonts,
    refuse_to_overwrite,
    write_attention_figure,
)

PHOTOGRAPH = Image.new("RGB", (400, 300), "grey")


def attend_to(cell, words=("dog",), method="attention"):
    """All attention of each word on one of the cells of a 2 x 2 feature map."""
    weights = np.tile(np.eye(4, dtype="float32")[cell], (len(words), 1))
    return AttentionMaps(tuple(words), weights, method)


def find_red(image):
    """Row and column of the centre of the red in a picture that is grey elsewhere."""
    pixels = np.asarray(image).astype(int)
    return np.argwhere(pixels[:, :, 0] - pixels[:, :, 2] > 90).mean(axis=0)


def test_the_heat_lies_on_the_attended_part_of_the_photograph():
    upper_left, upper_right, lower_left, lower_right = (
        find_red(draw_overlays(PHOTOGRAPH, attend_to(cell))[0]) for cell in range(4)
    )
    assert upper_left[0] == upper_right[0] < 150 < lower_left[0] == lower_right[0]
    assert upper_left[1] == lower_left[1] < 200 < upper_right[1] == lower_right[1]


def test_all_words_have_the_same_scale():
    weights = np.array([[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]], "float32")
    overlays = draw_overlays(PHOTOGRAPH, AttentionMaps(("red", "a"), weights, "attention"))
    focused, uniform = (np.asarray(overlay).astype(int) for overlay in overlays)
    strong, weak = ((pixels[:, :, 0] - pixels[:, :, 2]).max() for pixels in (focused, uniform))
    assert strong > 2 * weak > 0


@pytest.mark.parametrize("method", ["attention", "occlusion"])
@pytest.mark.parametrize("word_count", [0, 1, 11, 37])
@pytest.mark.parametrize("size", [(400, 300), (300, 400), (2000, 20), (20, 2000), (1, 1)])
def test_captions_and_photographs_of_any_size_make_a_figure(word_count, size, method):
    attention = attend_to(0, ["snowboarding"] * word_count, method)
    figure = draw_attention_figure(Image.new("RGB", size), attention)
    assert figure.get_figwidth() == 6.7
    assert [axes.get_xlabel() for axes in figure.axes].count("snowboarding") == word_count
    figure.savefig(file := BytesIO(), dpi=50)
    pixels = np.asarray(Image.open(file))
    assert (pixels[:, :5] == 255).all() and (pixels[-5:] == 255).all()  # nothing in the margin


def test_the_colour_bar_shows_the_highest_weight_and_the_unit():
    weights = np.array([[0.5, 0.25, 0.25, 0]], "float32")
    attention = AttentionMaps(("dog",), weights, "occlusion")
    bar = draw_attention_figure(PHOTOGRAPH, attention).axes[-1]
    assert [label.get_text() for label in bar.get_xticklabels()] == ["0%", "50%"]
    assert " ".join(bar.get_xlabel().split()) == explain_scale(attention)
    assert "loses" in explain_scale(attention) and "2 × 2 cells" in explain_scale(attention)
    assert "attention" in explain_scale(attend_to(0))


def test_a_file_holds_the_caption_and_the_resolution(tmp_path):
    for name, file_format in (("a.png", "PNG"), ("a.jpg", "JPEG"), ("b.jpeg", "JPEG")):
        write_attention_figure(tmp_path / name, PHOTOGRAPH, attend_to(0, ["a", "straße"]))
        with Image.open(tmp_path / name) as picture:
            assert (picture.format, picture.width) == (file_format, 2010)
            assert [round(side) for side in picture.info["dpi"]] == [300, 300]
        assert "a straße".encode() in (tmp_path / name).read_bytes()
        refuse_to_overwrite(tmp_path / name)  # does not refuse: the file may be replaced


def test_other_files_are_not_overwritten(tmp_path):
    refuse_to_overwrite(tmp_path / "missing.png")
    PHOTOGRAPH.save(tmp_path / "photo.png")
    (tmp_path / "notes.png").write_text("no picture")
    for name in ("photo.png", "notes.png"):
        with pytest.raises(FileExistsError, match=f"got .*{name}, which is another file"):
            refuse_to_overwrite(tmp_path / name)


def test_letters_that_the_first_font_lacks_come_from_another_font():
    assert find_fonts("a dog") == find_fonts("") == ["DejaVu Sans"]
    assert "STIXGeneral" in find_fonts("a の")  # comes with matplotlib, as DejaVu Sans does


def test_letters_that_no_font_has_are_an_error():
    unassigned = "\U0003fffd"
    with pytest.raises(
        ValueError, match=f"Expected a font with the letters {unassigned}, got none"
    ):
        draw_attention_figure(PHOTOGRAPH, attend_to(0, ["a", unassigned]))
