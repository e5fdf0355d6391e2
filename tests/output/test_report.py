import pytest
from test_pages import Page, resolve_link

from captioning.evaluation.metrics import score_captions
from captioning.output.report import write_report

NAMES = [f"{number:02}.jpg" for number in range(12)]
REFERENCES = {name: [f"A woman number{name[:2]} runs .", "A woman & <b>"] for name in NAMES}
CAPTIONS = {name: f"a woman number{name[:2]} runs" for name in NAMES} | {"03.jpg": "a man sits"}
RECORD = {
    "settings": {"units": 512},
    "history": [
        {"stage": "cross-entropy", "loss": 3.0, "val_loss": 2.0, "development CIDEr": 0.25},
        {"stage": "cross-entropy", "loss": 2.0, "val_loss": 1.0, "development CIDEr": 0.5},
        {"stage": "self-critical", "reward": 0.75, "development CIDEr": 0.375},
    ],
}


@pytest.fixture
def write_page(tmp_path):
    """Writes the page of a training record, and parses it."""

    def write_page(record):
        path = tmp_path / "pages" / "report.html"
        scores = score_captions(CAPTIONS, REFERENCES, meteor=False)
        images = tmp_path / "photos"
        write_report(path, "development", CAPTIONS, REFERENCES, scores, images, record)
        return Page(path)

    return write_page


def find_drawings(page):
    return [image for image in page.all("img") if image["src"].startswith("data:")]


def test_the_worst_caption_is_shown_with_its_image_and_its_reference_captions(write_page):
    page = write_page(RECORD)
    worst = page.text[page.text.index("Worst captions") :]
    assert worst.index("a man sits") < worst.index("a woman number")
    assert "A woman number03 runs ." in worst
    best, _, _ = page.text.partition("Worst captions")
    assert "a man sits" not in best


def test_confused_words_are_counted_and_shown(write_page):
    text = write_page(RECORD).text
    assert "“man” instead of “woman”" in text
    assert "1 of the 1 captions with “man”" in text


def test_images_are_linked_relative_to_the_page_with_a_reference_caption_as_alt_text(
    write_page, tmp_path
):
    images = [image for image in write_page(RECORD).all("img") if "loading" in image]
    assert len(images) == 8 + 8 + 1
    page_path = tmp_path / "pages" / "report.html"
    assert resolve_link(page_path, images[-1]["src"]) == str(tmp_path / "photos" / "03.jpg")
    assert images[-1]["alt"] == "A woman number03 runs ."


def test_the_training_is_drawn_for_light_and_dark_pages_and_listed(write_page):
    page = write_page(RECORD)
    assert len(find_drawings(page)) == len(page.all("source")) == 1
    assert "3 epochs: cross-entropy, then self-critical. Epoch\n2 has the best" in page.text
    assert "0.3750" in page.text
    assert {"scope": "row"} in page.all("th") and {"scope": "col"} in page.all("th")
    assert "the table below has the numbers" in find_drawings(page)[0]["alt"]


def test_each_member_of_an_ensemble_and_its_student_are_drawn_one_after_the_other(write_page):
    members = [epoch | {"member": member} for member in (1, 2) for epoch in RECORD["history"]]
    ensemble = {"stage": "ensemble", "development CIDEr": 0.625}
    page = write_page({"history": [*members, ensemble, *RECORD["history"][:2]]})
    assert len(find_drawings(page)) == 3
    first, second, student = map(page.text.index, ("Member 1", "Member 2", "Student"))
    assert first < second < student
    assert page.text.count("3 epochs: cross-entropy, then self-critical.") == 2
    assert page.text.count("2 epochs: cross-entropy.") == 1


def test_a_model_without_a_record_has_a_report_without_curves(write_page):
    page = write_page({"history": []})
    assert not find_drawings(page)
    assert "Training" not in page.text and "Settings" not in page.text
    assert "distinct captions" in page.text


def test_no_reference_caption_breaks_the_page(write_page):
    page = write_page(RECORD)
    assert "A woman & <b>" in page.text
    assert not page.all("b") and not page.all("script")
