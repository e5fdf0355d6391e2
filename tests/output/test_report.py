import pytest
from test_gallery import Page, linked_file

from captioning.evaluation.metrics import score_captions
from captioning.output.report import write_report

NAMES = [f"{number:02}.jpg" for number in range(12)]
REFERENCES = {name: [f"A woman number{name[:2]} runs .", "A woman & <b>"] for name in NAMES}
CAPTIONS = {name: f"a woman number{name[:2]} runs" for name in NAMES} | {"03.jpg": "a man sits"}
RECORD = {
    "settings": {"units": 512},
    "history": [
        {"stage": "teacher forcing", "loss": 3.0, "val_loss": 2.0, "development CIDEr": 0.25},
        {"stage": "teacher forcing", "loss": 2.0, "val_loss": 1.0, "development CIDEr": 0.5},
        {"stage": "self-critical", "reward": 0.75, "development CIDEr": 0.375},
    ],
}


@pytest.fixture
def page_of(tmp_path):
    def write(record):
        path = tmp_path / "pages" / "report.html"
        scores = score_captions(CAPTIONS, REFERENCES, meteor=False)
        images = tmp_path / "photos"
        write_report(path, "development", CAPTIONS, REFERENCES, scores, images, record)
        return Page(path)

    return write


def test_the_worst_caption_is_shown_with_its_image_and_what_people_say(page_of):
    page = page_of(RECORD)
    worst = page.text[page.text.index("The worst captions") :]
    assert worst.index("a man sits") < worst.index("a woman number")
    assert "A woman number03 runs ." in worst
    best, _, _ = page.text.partition("The worst captions")
    assert "a man sits" not in best


def test_the_most_frequent_confusion_is_named_and_shown(page_of):
    text = page_of(RECORD).text
    assert "Most often it says “man” where people say “woman”: 1 times." in text
    assert "1 of the 1 captions that say “man”" in text


def test_images_are_linked_relative_to_the_page_and_told_in_the_words_of_people(page_of, tmp_path):
    images = page_of(RECORD).all("img")
    assert len(images) == 8 + 8 + 1
    page_path = tmp_path / "pages" / "report.html"
    assert linked_file(page_path, images[-1]["src"]) == str(tmp_path / "photos" / "03.jpg")
    assert images[-1]["alt"] == "A woman number03 runs ."


def test_both_stages_are_drawn_and_told(page_of):
    page = page_of(RECORD)
    assert len(page.all("svg")) == 3
    assert "3 epochs: teacher forcing, then self-critical. Epoch 2," in page.text
    assert "0.3750" in page.text


def test_members_of_an_ensemble_are_drawn_and_told_one_after_the_other(page_of):
    members = [epoch | {"member": member} for member in (1, 2) for epoch in RECORD["history"]]
    page = page_of({"history": [*members, {"stage": "ensemble", "development CIDEr": 0.625}]})
    assert len(page.all("svg")) == 2 * 3
    assert "2 models were trained" in page.text and "CIDEr of 0.6250." in page.text
    first, second = page.text.index("Member 1"), page.text.index("Member 2")
    assert (
        first < page.text.index("3 epochs: teacher forcing, then self-critical. Epoch 2,") < second
    )
    assert page.text.count("3 epochs: teacher forcing, then self-critical. Epoch 2,") == 2


def test_a_student_is_drawn_after_its_teachers(page_of):
    members = [epoch | {"member": member} for member in (1, 2) for epoch in RECORD["history"]]
    mean = {"stage": "ensemble", "development CIDEr": 0.625}
    page = page_of({"history": [*members, mean, *RECORD["history"][:2]]})
    assert len(page.all("svg")) == 2 * 3 + 2
    assert page.text.index("Member 2") < page.text.index("Student")
    assert page.text.index("Student") < page.text.index("2 epochs: teacher forcing. Epoch 2,")
    assert "CIDEr of 0.6250. They taught a student, which was kept." in page.text


def test_a_student_of_one_teacher_is_told_as_such(page_of):
    teacher = [epoch | {"member": 1} for epoch in RECORD["history"]]
    page = page_of({"history": [*teacher, *RECORD["history"][:2]]})
    assert "It taught a student, which was kept." in page.text


def test_a_model_without_a_record_has_a_report_without_curves(page_of):
    page = page_of({"history": []})
    assert not page.all("svg")
    assert "Training" not in page.text and "Settings" not in page.text
    assert "distinct captions" in page.text


def test_nothing_that_people_say_breaks_the_page(page_of):
    page = page_of(RECORD)
    assert "A woman & <b>" in page.text
    assert not page.all("b") and not page.all("script")
