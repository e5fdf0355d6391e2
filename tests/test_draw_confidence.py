import numpy as np
import pytest

from tools.draw_confidence import draw, find_risk, write_tables

CONFIDENCES = np.repeat(np.arange(10) / 10 + 0.06, 10)
SUPPORTED = CONFIDENCES > 0.5


def test_the_risk_is_the_share_of_wrong_captions_among_the_most_confident():
    risk = find_risk(np.array([0.1, 0.9, 0.5]), np.array([False, True, False]))
    assert risk.tolist() == pytest.approx([0, 1 / 2, 2 / 3])


def test_the_tables_state_the_numbers_of_both_diagrams():
    assert write_tables(CONFIDENCES, SUPPORTED).splitlines() == [
        "| confidence, mean of the bin | 6 % | 16 % | 26 % | 36 % | 46 % | 56 % | 66 % | 76 % "
        "| 86 % | 96 % |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        "| supported captions | 0 % | 0 % | 0 % | 0 % | 0 % | 100 % | 100 % | 100 % | 100 % "
        "| 100 % |",
        "",
        "| captions kept | 10 % | 25 % | 50 % | 75 % | 100 % |",
        "|---|---|---|---|---|---|",
        "| not supported, of those kept | 0 % | 0 % | 0 % | 33 % | 50 % |",
    ]


def test_the_figure_names_its_scores():
    titles = [axes.get_title() for axes in draw(CONFIDENCES, SUPPORTED).axes]
    assert titles == ["Reliability (calibration error 25.0%)", "Risk and coverage (AUROC 1.00)"]
