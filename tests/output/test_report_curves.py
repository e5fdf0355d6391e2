import pytest

from captioning.output.report import draw_curves, split_by_model, to_data_url

CROSS_ENTROPY = [
    {"stage": "cross-entropy", "loss": 3.0, "val_loss": 2.0, "development CIDEr": 0.25},
    {"stage": "cross-entropy", "loss": 2.0, "val_loss": 1.5, "development CIDEr": 0.5},
]
SELF_CRITICAL = [{"stage": "self-critical", "reward": 0.75, "development CIDEr": 0.375}]


def curves(axes):
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines
    }


def test_each_chart_has_the_numbers_of_the_epochs_that_have_them():
    loss, cider, reward = draw_curves(CROSS_ENTROPY + SELF_CRITICAL).axes
    assert curves(loss)["training"] == ([1, 2], [3.0, 2.0])
    assert curves(loss)["development"] == ([1, 2], [2.0, 1.5])
    assert curves(cider)["CIDEr"] == ([1, 2, 3], [0.25, 0.5, 0.375])
    assert curves(reward)["reward"] == ([3], [0.75])
    assert loss.get_xlim() == cider.get_xlim() == reward.get_xlim()


def test_the_second_stage_and_the_best_epoch_are_marked():
    _, cider, _ = draw_curves(CROSS_ENTROPY + SELF_CRITICAL).axes
    marks = {text.get_text().strip(): text.get_position()[0] for text in cider.texts}
    assert marks == {"self-critical": 3, "kept": 2}


def test_a_stage_that_begins_with_the_best_epoch_has_one_mark():
    epochs = [*CROSS_ENTROPY[:1], *SELF_CRITICAL]
    _, cider, _ = draw_curves(epochs).axes
    assert [text.get_text().strip() for text in cider.texts] == ["self-critical, kept"]


@pytest.mark.parametrize("numbers", [[0.5], [0.0, 0.0], [1e-9, 2e9], [-1.0, 1.0]])
def test_any_numbers_can_be_drawn_on_light_and_on_dark_pages(numbers):
    epochs = [{"stage": "cross-entropy", "development CIDEr": number} for number in numbers]
    light, dark = (to_data_url(draw_curves(epochs, theme)) for theme in ("light", "dark"))
    assert light.startswith("data:image/svg+xml;base64,")
    assert dark.startswith("data:image/svg+xml;base64,")
    assert light != dark


def test_the_epochs_of_an_ensemble_are_split_by_model():
    members = [epoch | {"member": member} for member in (1, 2) for epoch in CROSS_ENTROPY]
    ensemble = [{"stage": "ensemble", "development CIDEr": 0.625}]
    assert split_by_model([*members, *ensemble, *SELF_CRITICAL]) == {
        "Member 1": members[:2],
        "Member 2": members[2:],
        "Student": SELF_CRITICAL,
    }
    assert split_by_model(members[:2]) == {"Member 1": members[:2]}
    assert split_by_model(CROSS_ENTROPY) == {"Model": CROSS_ENTROPY}
    assert split_by_model([]) == {}


def test_each_run_that_continued_a_model_is_drawn_on_its_own():
    continued = [epoch | {"continuation": 1} for epoch in SELF_CRITICAL]
    assert split_by_model([*CROSS_ENTROPY, *continued]) == {
        "Model": CROSS_ENTROPY,
        "Continuation 1": continued,
    }
